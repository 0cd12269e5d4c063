"""One attempt from its claim to its end, without a runner: stores that fail, datasets, disks, and who may interrupt."""

import errno
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import event
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import give_back
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.verbs import request_cancel, request_pause
from core.recipe.data.materialise import dataset_path
from core.settings import Settings
from core.store.base import Digest, StoreTransient
from core.store.local import LocalStore
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, new_checkpoint, running, small_spec, state_of, submitted
from tests.support.service import until
from worker import provision, wire
from worker.attempt import Slot, WorkerContext
from worker.exit_codes import MACHINE_FAILED
from worker.launcher import ExecLauncher, LaunchFailed, RunnerProcess
from worker.outcome import ProcessExit
from worker.supervisor import serve_one

SLOT = Slot(0, "cpu", "")
TIMINGS = {"lease_seconds": 3.0, "beat_seconds": 0.2, "tick_seconds": 0.5}


class NoRunner(ExecLauncher):
    """Starts nothing: the attempts here end before, or with a loss."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        raise LaunchFailed("not here")


class Dying(ExecLauncher):
    """Its runners end without a word to their supervisor, and leave some on stderr."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        ours, theirs = socket.socketpair()
        theirs.close()
        stderr.write_text("Traceback\npassword=hunter2\nBoom: 42\n")
        runner = RunnerProcess(ours)
        runner.set_exit(ProcessExit(code=3))
        return runner


class AwayStore(LocalStore):
    """A store that is away for ever."""

    def fetch(self, key: str, path: Path) -> Digest:
        raise StoreTransient("away")


class Saying(ExecLauncher):
    """Its runner says how it ended, if anything, prints, and is gone."""

    def __init__(self, how: ProcessExit, ended: dict[str, Any] | None, printed: str = "") -> None:
        self._how = how
        self._ended = ended
        self._printed = printed

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        ours, theirs = socket.socketpair()
        runner = RunnerProcess(ours)
        stderr.write_text(self._printed)
        if self._ended:
            theirs.sendall(wire.pack_frame("ended", "j", self._ended))
        theirs.close()
        runner.set_exit(self._how)
        return runner


@pytest.fixture
def shop(db: Database, tmp_path: Path) -> Iterator[WorkerContext]:
    settings = Settings.model_validate(TIMINGS | {"home": tmp_path, "machine_pause_seconds": 0.3})
    settings.datasets.mkdir(parents=True)
    dataset_path(small_spec().data, settings.datasets).touch()
    scratch = provision.Scratch(tmp_path / "scratch", "w")
    scratch.open()
    yield WorkerContext("w", settings, db, LocalStore(tmp_path / "store"), NoRunner(), scratch, threading.Event())
    scratch.close()


@pytest.fixture
def unwritten(shop: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> list["subprocess.Popen[bytes]"]:
    """No dataset is there, and whoever writes one takes for ever; the processes that try."""
    dataset_path(small_spec().data, shop.settings.datasets).unlink()
    begun: list[subprocess.Popen[bytes]] = []

    def materialise(*_: object) -> "subprocess.Popen[bytes]":
        arguments = [sys.executable, "-c", "import time; time.sleep(600)"]
        begun.append(subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return begun[-1]

    monkeypatch.setattr(provision, "_start_materialise", materialise)
    return begun


def kept(db: Database, store: LocalStore, folder: Path, steps: list[int]) -> tuple[str, list[Any]]:
    """A queued job with these checkpoints; its id, and their rows."""
    fence, rows = running(db), []
    for step in steps:
        row = new_checkpoint(fence, step)
        for name in ("weights", "state", "manifest"):
            (folder / name).write_bytes(b"{}")
            digest = store.put_file(folder / name, f"{row.key}/{name}")
            row.files[name] = {"name": name, "sha256": digest.sha256, "bytes": digest.bytes}
        record_checkpoint(db, fence, row, (), resumable=True)
        rows.append(row)
    give_back(db, fence, cause="stop", lost=False, max_losses=3)
    return fence.job_id, rows


def serving(shop: WorkerContext) -> threading.Thread:
    thread = threading.Thread(target=serve_one, args=(shop, SLOT), daemon=True)
    thread.start()
    return thread


def warnings(db: Database, job_id: str) -> list[str]:
    with db.read() as connection:
        query = select(event.c.data).where(event.c.job_id == job_id, event.c.type == "warning")
        return [data["code"] for data in connection.execute(query).scalars()]


@POSTGRESQL_IS_SLOW
def test_the_last_words_of_a_runner_are_kept_with_the_failure(shop: WorkerContext, db: Database) -> None:
    """Its owner cannot look at the worker's disk."""
    job_id = submitted(db)
    serve_one(replace(shop, launcher=Dying()), SLOT)
    with db.read() as connection:
        query = select(event.c.data).where(event.c.job_id == job_id, event.c.type == "warning")
        (told,) = connection.execute(query).scalars()
    assert told["code"] == "attempt_failed"
    first, hidden, last = told["stderr"].splitlines()
    assert (first, last) == ("Traceback", "Boom: 42")
    assert "hunter2" not in hidden
    assert state_of(db, job_id)["status"] == "failed"


def test_a_checkpoint_that_cannot_be_read_is_damaged(shop: WorkerContext, db: Database, tmp_path: Path) -> None:
    """No retry helps there: the one before is used."""
    store = LocalStore(tmp_path / "store")
    job_id, (first, second) = kept(db, store, tmp_path, [4, 8])
    path = tmp_path / "store" / second.key / "state"
    path.unlink()
    path.mkdir()
    begun = time.monotonic()
    assert serve_one(shop, SLOT)
    assert time.monotonic() - begun < 8.0
    assert warnings(db, job_id) == ["checkpoint_corrupt", "attempt_lost"]
    state = state_of(db, job_id)
    assert (state["checkpoint_id"], state["status"]) == (first.id, "queued")


@POSTGRESQL_IS_SLOW
def test_a_store_that_stays_away_is_not_waited_for_for_ever(shop: WorkerContext, db: Database, tmp_path: Path) -> None:
    """And its checkpoint is not taken for damaged: the job waits for a worker that reaches the store."""
    hasty = shop.settings.model_copy(update={"fetch_seconds": 0.5, "machine_pause_seconds": 0.001})
    shop = replace(shop, settings=hasty)
    job_id, _ = kept(db, LocalStore(tmp_path / "store"), tmp_path, [4])
    kept_id = state_of(db, job_id)["checkpoint_id"]
    thread = serving(replace(shop, store=AwayStore(tmp_path / "store")))
    thread.join(10.0)
    assert not thread.is_alive()
    state = state_of(db, job_id)
    assert kept_id is not None
    assert (state["status"], state["losses"], state["checkpoint_id"]) == ("queued", 0, kept_id)


@POSTGRESQL_IS_SLOW
def test_cancel_ends_the_waiting_for_a_store(shop: WorkerContext, db: Database, tmp_path: Path) -> None:
    job_id, _ = kept(db, LocalStore(tmp_path / "store"), tmp_path, [4])
    thread = serving(replace(shop, store=AwayStore(tmp_path / "store")))
    until("it runs", lambda: state_of(db, job_id)["status"] == "running")
    request_cancel(db, OWNER, job_id)
    thread.join(6.0)
    assert state_of(db, job_id)["status"] == "cancelled"


@POSTGRESQL_IS_SLOW
def test_a_killed_writer_of_a_dataset_is_no_fault_of_the_job(
    shop: WorkerContext, db: Database, unwritten: list["subprocess.Popen[bytes]"]
) -> None:
    job_id = submitted(db)
    thread = serving(shop)
    until("the dataset is being written", lambda: unwritten)
    unwritten[0].kill()
    thread.join(10.0)
    state = state_of(db, job_id)
    assert (state["status"], state["losses"]) == ("queued", 1)


@POSTGRESQL_IS_SLOW
@pytest.mark.parametrize(
    ("wish", "status"), [("stop", "queued"), ("cancel", "cancelled"), ("pause", "paused"), ("fence", "queued")]
)
def test_the_writing_of_a_dataset_hears_wishes(
    shop: WorkerContext, db: Database, unwritten: list["subprocess.Popen[bytes]"], wish: str, status: str
) -> None:
    job_id = submitted(db)
    thread = serving(shop)
    until("the dataset is being written", lambda: unwritten)
    wishes: dict[str, Callable[[], object]] = {
        "stop": shop.stopping.set,
        "cancel": lambda: request_cancel(db, OWNER, job_id),
        "pause": lambda: request_pause(db, OWNER, job_id),
        "fence": lambda: give_back(db, Fence(job_id, 1), cause="taken away", lost=False, max_losses=3),
    }
    wishes[wish]()
    thread.join(8.0)
    assert not thread.is_alive()
    assert unwritten[0].poll() is not None
    state = state_of(db, job_id)
    assert (state["status"], state["losses"], len(unwritten)) == (status, 0, 1)


@POSTGRESQL_IS_SLOW
@pytest.mark.parametrize("where", ["folder", "stderr"])
def test_a_full_disk_costs_the_job_nothing_and_rests_the_slot(
    shop: WorkerContext, db: Database, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "folder":
        monkeypatch.setattr(provision.Scratch, "attempt_folder", full)
    else:
        monkeypatch.setattr(provision.AttemptFolder, "stderr", property(full))
    job_id = submitted(db)
    begun = time.monotonic()
    assert serve_one(shop, SLOT)
    assert time.monotonic() - begun >= 0.3
    state = state_of(db, job_id)
    assert (state["status"], state["losses"]) == ("queued", 0)


FAILED = {
    "outcome": "failed",
    "stop_reason": None,
    "results": {},
    "error": {"code": "machine_failed", "message": "No space left on device", "remedy": ""},
    "progress": {},
}


@POSTGRESQL_IS_SLOW
@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param(Saying(ProcessExit(code=0), FAILED), id="said"),
        pytest.param(
            Saying(ProcessExit(code=MACHINE_FAILED), None, "OSError: No space left on device"), id="exit status"
        ),
    ],
)
def test_a_machine_that_fails_a_runner_costs_the_job_nothing_and_rests_the_slot(
    shop: WorkerContext, db: Database, launcher: ExecLauncher
) -> None:
    job_id = submitted(db)
    for attempt in range(1, 5):  # more often than a job may be lost
        begun = time.monotonic()
        assert serve_one(replace(shop, launcher=launcher), SLOT)
        assert time.monotonic() - begun >= 0.3
        state = state_of(db, job_id)
        assert (state["status"], state["losses"], state["attempt"]) == ("queued", 0, attempt)


@POSTGRESQL_IS_SLOW
def test_a_runner_that_is_gone_without_a_word_is_a_loss(shop: WorkerContext, db: Database) -> None:
    job_id = submitted(db)
    silent = replace(shop, launcher=Saying(ProcessExit(code=70), None))
    statuses = []
    for _ in range(3):
        assert serve_one(silent, SLOT)
        statuses.append((state_of(db, job_id)["status"], state_of(db, job_id)["losses"]))
    assert statuses == [("queued", 1), ("queued", 2), ("failed", 3)]


@POSTGRESQL_IS_SLOW
def test_a_launcher_without_a_descriptor_left_is_no_loss(
    shop: WorkerContext, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> RunnerProcess:
        raise LaunchFailed("the zygote took no order") from OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(shop.launcher, "launch", none_left)
    job_id = submitted(db)
    assert serve_one(shop, SLOT)
    assert (state_of(db, job_id)["status"], state_of(db, job_id)["losses"]) == ("queued", 0)
