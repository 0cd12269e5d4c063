"""Checkpoints whose files were missing and are back: the job goes on from them as if they had never been away."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import checkpoint, event, metric_chunk_aside
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.checkpoints.missing import missing_checkpoints, revive_missing
from core.jobs.checkpoints.records import NewCheckpoint, record_checkpoint
from core.jobs.events.cursor import START
from core.jobs.events.feed import FeedQuery, read_feed
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.ledger.check import Ledger
from core.jobs.metrics.chunks import read_series, record_points
from core.jobs.store_identity import IdentifiedStore
from core.lifecycle import Status
from core.recipe.data.materialise import dataset_path
from core.settings import Settings
from core.store.base import StoreTransient
from core.store.local import LocalStore
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import chunk, new_checkpoint, running, small_spec, state_of, taken
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.launcher import ExecLauncher, LaunchFailed, RunnerProcess
from worker.supervisor import serve_one

pytestmark = POSTGRESQL_IS_SLOW

SLOT = Slot(0, "cpu", "")


class NoRunner(ExecLauncher):
    """Starts nothing: every attempt ends with a loss once it has what it needs."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        raise LaunchFailed("not here")


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[WorkerContext]:
    settings = Settings.model_validate({"home": tmp_path, "max_losses": 9, "machine_pause_seconds": 0.001})
    settings.datasets.mkdir(parents=True)
    dataset_path(small_spec().data, settings.datasets).touch()
    scratch = provision.Scratch(tmp_path / "scratch", "w")
    scratch.open()
    store = IdentifiedStore(LocalStore(tmp_path / "store"), db, where="here")
    yield WorkerContext("w", settings, db, store, NoRunner(), scratch, threading.Event())
    scratch.close()


def add_checkpoint(shop: WorkerContext, fence: Fence, step: int, after: int) -> NewCheckpoint:
    """A checkpoint with its files, and the points since the one before."""
    row, folder = new_checkpoint(fence, step), shop.settings.home
    for name in ("weights", "state", "manifest"):
        (folder / name).write_bytes(b"{}")
        digest = shop.store.put_file(folder / name, f"{row.key}/{name}")
        row.files[name] = {"name": name, "sha256": digest.sha256, "bytes": digest.bytes}
    row = NewCheckpoint(**{**vars_of(row), "sha256": digest.sha256, "bytes": digest.bytes})
    record_checkpoint(shop.db, fence, row, [chunk("lr", after, step - after, after)], resumable=True)
    return row


def vars_of(row: NewCheckpoint) -> dict[str, object]:
    return {name: getattr(row, name) for name in NewCheckpoint.__dataclass_fields__}


@pytest.fixture
def kept(shop: WorkerContext) -> tuple[Fence, list[NewCheckpoint]]:
    """A running job with checkpoints at three steps, and points behind the last."""
    fence = running(shop.db, checkpoints={"every": "4st", "keep_last": 9})
    rows = [add_checkpoint(shop, fence, step, step - 4) for step in (4, 8, 12)]
    record_points(shop.db, fence, [chunk("lr", 12, 2, 12)])
    return fence, rows


class Files:
    """The files of a checkpoint, away for a while."""

    def __init__(self, shop: WorkerContext, row: NewCheckpoint) -> None:
        self._path = shop.settings.home / "store" / row.key
        self._aside = shop.settings.home / row.id

    def leave(self) -> None:
        self._path.rename(self._aside)

    def come_back(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._aside.rename(self._path)


def steps(db: Database, job_id: str) -> list[int]:
    found = read_series(db, job_id)
    return list(found["lr"].steps) if found else []


def warnings(db: Database, job_id: str) -> list[str]:
    with db.read() as connection:
        query = select(event.c.data).where(event.c.job_id == job_id, event.c.type == "warning").order_by(event.c.id)
        return [data["code"] for data in connection.execute(query).scalars()]


def status_of(db: Database, row: NewCheckpoint) -> tuple[str, bool]:
    with db.read() as connection:
        query = select(checkpoint.c.status, checkpoint.c.missing_at).where(checkpoint.c.id == row.id)
        status, missing_at = connection.execute(query).one()
    return status, missing_at is not None


def put_aside(db: Database) -> int:
    with db.read() as connection:
        return len(connection.execute(select(metric_chunk_aside.c.number)).all())


def stop(db: Database, fence: Fence) -> None:
    give_back(db, fence, cause="stop", lost=False, max_losses=9)


def sound(shop: WorkerContext) -> bool:
    return list(Ledger(shop.db, shop.store).iter_findings()) == []


def test_a_job_goes_on_from_a_checkpoint_that_is_back(
    shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]
) -> None:
    """Its points too, although a job that fell back has forgotten them; and readers of the feed follow."""
    fence, (first, second, third) = kept
    db, job_id = shop.db, fence.job_id
    stop(db, fence)
    away = [Files(shop, row) for row in (second, third)]
    for files in away:
        files.leave()
    assert serve_one(shop, SLOT)
    assert state_of(db, job_id)["checkpoint_id"] == first.id
    assert steps(db, job_id) == list(range(4))
    assert warnings(db, job_id) == ["checkpoint_corrupt", "checkpoint_corrupt", "attempt_lost"]
    (seen,) = read_feed(db, job_id, [FeedQuery(job_id, START, frozenset({"metrics"}))]) or []
    away[1].come_back()
    assert serve_one(shop, SLOT)
    assert state_of(db, job_id)["checkpoint_id"] == third.id
    assert (status_of(db, third), status_of(db, second)) == (("good", False), ("corrupt", True))
    assert steps(db, job_id) == list(range(12))
    assert warnings(db, job_id)[3:] == ["checkpoint_revived", "attempt_lost"]
    (after,) = read_feed(db, job_id, [FeedQuery(job_id, seen.cursor, frozenset({"metrics"}))]) or []
    (item,) = after.items
    assert (item.data["series"]["lr"]["offset"], item.data["series"]["lr"]["steps"]) == (4, list(range(4, 12)))
    assert sound(shop)


def test_a_missing_checkpoint_is_not_said_to_be_damaged(
    shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]
) -> None:
    fence, (*_, third) = kept
    stop(shop.db, fence)
    Files(shop, third).leave()
    assert serve_one(shop, SLOT)
    with shop.db.read() as connection:
        data = connection.execute(select(event.c.data).where(event.c.type == "warning").order_by(event.c.id)).first()
    assert data is not None
    assert data[0]["message"] == f"checkpoint {third.id} is not in the store; continuing from step 8"


def test_what_came_in_its_place_counts(shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]) -> None:
    """Once the job has stored another place to go on from, its past is another one."""
    fence, (*_, third) = kept
    db = shop.db
    stop(db, fence)
    files = Files(shop, third)
    files.leave()
    assert serve_one(shop, SLOT)
    claim = taken(db)
    assert claim is not None
    add_checkpoint(shop, Fence(fence.job_id, claim.attempt), 10, 8)
    stop(db, Fence(fence.job_id, claim.attempt))
    files.come_back()
    assert missing_checkpoints(db, fence.job_id, 10) == []
    assert revive_missing(db, shop.store) == 0
    assert serve_one(shop, SLOT)
    assert (status_of(db, third)[0], steps(db, fence.job_id), put_aside(db)) == ("corrupt", list(range(10)), 0)


def test_one_of_a_job_that_has_ended_is_found_by_the_chores(
    shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]
) -> None:
    """So that it can be forked, retried and downloaded again; while it is still missing, nothing happens."""
    fence, (*_, third) = kept
    db = shop.db
    stop(db, fence)
    files = Files(shop, third)
    files.leave()
    assert serve_one(shop, SLOT)
    claim = taken(db)
    assert claim is not None
    record_points(db, Fence(fence.job_id, claim.attempt), [chunk("lr", 8, 1, 8)])
    error = {"code": "engine_error", "message": "no", "remedy": None}
    finish_job(db, Fence(fence.job_id, claim.attempt), TerminalState(Status.FAILED, error=error))
    care = GarbageCollector(db, shop.store, shop.settings)
    care.run_due_chores()
    assert status_of(db, third) == ("corrupt", True)
    files.come_back()
    assert revive_missing(db, shop.store) == 1
    assert status_of(db, third) == ("good", False)
    assert (state_of(db, fence.job_id)["checkpoint_id"], steps(db, fence.job_id)) == (third.id, list(range(12)))
    assert sound(shop)


def test_what_a_job_became_without_it_stays(shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]) -> None:
    """A job that has succeeded keeps the curves of the way that it went in the end."""
    fence, (*_, third) = kept
    db = shop.db
    stop(db, fence)
    files = Files(shop, third)
    files.leave()
    assert serve_one(shop, SLOT)
    claim = taken(db)
    assert claim is not None
    finish_job(
        db, Fence(fence.job_id, claim.attempt), TerminalState(Status.SUCCEEDED, "completed"), [chunk("lr", 8, 2, 8)]
    )
    files.come_back()
    assert revive_missing(db, shop.store) == 0
    assert (status_of(db, third), steps(db, fence.job_id)) == (("corrupt", True), list(range(10)))


def test_other_bytes_in_its_place_are_no_return(shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]) -> None:
    fence, (*_, third) = kept
    stop(shop.db, fence)
    files = Files(shop, third)
    files.leave()
    assert serve_one(shop, SLOT)
    files.come_back()
    (shop.settings.home / "store" / third.key / "state").write_bytes(b"[]")
    assert serve_one(shop, SLOT)
    assert status_of(shop.db, third) == ("corrupt", True)
    assert revive_missing(shop.db, shop.store) == 0
    assert status_of(shop.db, third) == ("corrupt", False)


def test_nothing_is_looked_for_in_a_store_that_is_away(
    shop: WorkerContext, kept: tuple[Fence, list[NewCheckpoint]]
) -> None:
    fence, (*_, third) = kept
    stop(shop.db, fence)
    Files(shop, third).leave()
    assert serve_one(shop, SLOT)
    root = shop.settings.home / "store"
    root.rename(shop.settings.home / "elsewhere")
    with pytest.raises(StoreTransient):
        revive_missing(shop.db, shop.store)
    assert status_of(shop.db, third) == ("corrupt", True)
