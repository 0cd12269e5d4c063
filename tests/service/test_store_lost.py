"""A worker whose store goes away: it claims nothing, believes nothing, and writes nothing into what is there then."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import checkpoint
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import give_back
from core.jobs.branch import create_fork
from core.jobs.checkpoints.records import list_checkpoint_rows, record_checkpoint
from core.jobs.queue.submit import SubmitContext
from core.jobs.store_identity import IdentifiedStore
from core.jobs.verbs import request_pause
from core.recipe.data.materialise import dataset_path
from core.settings import Limits, Settings
from core.store.base import Store
from tests.service.test_recorder import checkpoint as said
from tests.service.test_recorder import warnings
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, new_checkpoint, running, small_spec, state_of
from tests.support.service import until
from tests.support.stores import Losable
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.backlog import Backlog
from worker.heartbeat import Heartbeat
from worker.launcher import ExecLauncher, LaunchFailed, RunnerProcess
from worker.recorder import Recorder
from worker.supervisor import serve_one

pytestmark = POSTGRESQL_IS_SLOW

SLOT = Slot(0, "cpu", "")
Identified = Callable[[Store], IdentifiedStore]


class NoRunner(ExecLauncher):
    """Starts nothing: every attempt ends with a loss once it has what it needs."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        raise LaunchFailed("not here")


@pytest.fixture
def shop(db: Database, losable: Losable, identified: Identified, tmp_path: Path) -> Iterator[WorkerContext]:
    hasty = {"machine_pause_seconds": 0.001, "fetch_seconds": 0.001}
    settings = Settings.model_validate({"home": tmp_path / "home"} | hasty)
    settings.datasets.mkdir(parents=True)
    dataset_path(small_spec().data, settings.datasets).touch()
    scratch = provision.Scratch(tmp_path / "scratch", "w")
    scratch.open()
    yield WorkerContext("w", settings, db, identified(losable.plain), NoRunner(), scratch, threading.Event())
    scratch.close()


@pytest.fixture
def kept(shop: WorkerContext, tmp_path: Path) -> str:
    """A queued job with two checkpoints."""
    fence = running(shop.db)
    for step in (4, 8):
        row = new_checkpoint(fence, step)
        for name in ("weights", "state", "manifest"):
            (tmp_path / name).write_bytes(b"{}")
            digest = shop.store.put_file(tmp_path / name, f"{row.key}/{name}")
            row.files[name] = {"name": name, "sha256": digest.sha256, "bytes": digest.bytes}
        record_checkpoint(shop.db, fence, row, (), resumable=True)
    give_back(shop.db, fence, cause="stop", lost=False, max_losses=3)
    return fence.job_id


class LeavingStore(IdentifiedStore):
    """Answers the question before the claim, and is gone right afterwards."""

    leave: Callable[[], object]

    def ping(self) -> None:
        super().ping()
        self.leave()


def leaving(shop: WorkerContext, losable: Losable, gone: ExitStack) -> WorkerContext:
    store = LeavingStore(losable.plain, shop.db, where="somewhere")
    store.leave = lambda: gone.enter_context(losable.lost())
    return replace(shop, store=store)


def statuses(db: Database) -> list[str]:
    with db.read() as connection:
        return list(connection.execute(select(checkpoint.c.status)).scalars())


def test_nothing_is_claimed_while_the_store_is_away(shop: WorkerContext, losable: Losable, kept: str) -> None:
    before = state_of(shop.db, kept)
    with losable.lost():
        assert not serve_one(shop, SLOT)
    assert state_of(shop.db, kept) == before
    assert serve_one(shop, SLOT)
    assert state_of(shop.db, kept)["checkpoint_id"] == before["checkpoint_id"]


def test_a_store_that_leaves_after_the_claim_costs_no_checkpoint(
    shop: WorkerContext, losable: Losable, kept: str
) -> None:
    """This was taken for the loss of every checkpoint, one after the other, and the job began again at step 0."""
    before = state_of(shop.db, kept)
    with ExitStack() as gone:
        assert serve_one(leaving(shop, losable, gone), SLOT)
    after = state_of(shop.db, kept)
    assert (after["status"], after["losses"], after["checkpoint_id"]) == ("queued", 0, before["checkpoint_id"])
    assert statuses(shop.db) == ["good", "good"]


def test_a_fork_waits_for_its_parents_store(shop: WorkerContext, losable: Losable, kept: str) -> None:
    child = create_fork(shop.db, kept, SubmitContext(OWNER, Limits(), 60.0), changes={"epochs": 5}).job_id
    request_pause(shop.db, OWNER, kept)
    with ExitStack() as gone:
        assert serve_one(leaving(shop, losable, gone), SLOT)
    assert (state_of(shop.db, child)["status"], statuses(shop.db)) == ("queued", ["good", "good"])
    assert serve_one(shop, SLOT)
    assert state_of(shop.db, child)["losses"] == 1  # it had all that it needs, and no runner


def test_an_upload_waits_until_the_right_store_is_there(
    shop: WorkerContext, losable: Losable, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """One event says so; what stands in its place stays as it is, which `lost` looks at."""
    shop.store.ping()
    fence: Fence = running(shop.db)
    backlog = Backlog(tmp_path / "spill")
    heart = heart_of(fence)
    heart.start()
    recorder = Recorder(heart, shop.store, backlog, None, tmp_path)
    with losable.lost():
        recorder.start()
        backlog.put(said(tmp_path, 1))
        until("it was tried", lambda: warnings(shop.db, fence) == ["store_away"])
    recorder.close()
    backlog.discard_all()
    assert (recorder.failure, recorder.missing, warnings(shop.db, fence)) == (None, set(), ["store_away"])
    (row,) = list_checkpoint_rows(shop.db, OWNER, fence.job_id)
    assert shop.store.fetch(f"{row.key}/weights.safetensors", tmp_path / "back").sha256 == row.sha256
