"""Runners that are slow, that hang, and that are held back: real ones, with networks that take their time."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import event
from core.jobs.analyses import create_analysis
from core.jobs.attempt.fence import Fence
from core.jobs.queue.submit import SubmitContext
from core.recipe.data.materialise import materialise_dataset
from core.recipe.parse import parse_analysis
from core.recipe.plan import ExecutionPlan, resolve_plan
from core.settings import Limits, Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER, small_spec, state_of, submitted
from tests.support.service import ROOT
from worker import provision, supervisor
from worker.attempt import Slot, WorkerContext
from worker.backlog import Backlog
from worker.heartbeat import Heartbeat
from worker.launcher import ExecLauncher, RunnerProcess, wait_and_report
from worker.outcome import KillReason
from worker.recorder import Recorder
from worker.supervisor import serve_one
from worker.watch import RunnerWatch

STALL: Final = 4.0
SLOT: Final = Slot(0, "cpu", "")
TIMINGS: Final = {"lease_seconds": 6.0, "beat_seconds": 0.5, "tick_seconds": 0.5, "stall_seconds": STALL}
DATA: Final = {"name": "iris", "validation": 0.28, "test": 0}  # 42 validation examples, 108 to train on
SPEC: Final[dict[str, Any]] = {"data": DATA, "batch_size": 12, "epochs": 1}
SLEEPS: Final = "time.sleep(0.5)"  # nine or ten passes are longer than STALL, and each of them is shorter
SPINS: Final = "while True: pass"

RUNNER: Final = """
import os, time, torch
from core.engine.analysis.loss_surface import LossSurface
from core.engine.networks import network
from worker import runner

forward, mean, seen = network.direct_forward, LossSurface._mean_loss, []

def take_time(kind):
    if kind == {kind!r}:
        seen.append(kind)
        if len(seen) > {after}:
            {what}

def slow_forward(module):
    compute = forward(module)
    def slowly(inputs):
        if not torch.is_grad_enabled():
            take_time("batch_norm" if any(layer.training for layer in module) else "evaluate")
        return compute(inputs)
    return slowly

def slow_mean(*given):
    take_time("terrain")
    return mean(*given)

os.fsync = lambda _: None  # how long a disk takes that others write to is not the question
network.direct_forward, LossSurface._mean_loss, runner._plot_renderer = slow_forward, slow_mean, lambda *_: None
runner.main()
"""


class SlowRunners(ExecLauncher):
    """Real runners; passes of one `kind` take the time that `what` takes, once `after` of them are done."""

    def __init__(self) -> None:
        self.kind, self.after, self.what = "", 0, SLEEPS

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        ours, theirs = socket.socketpair()
        code = RUNNER.format(kind=self.kind, after=self.after, what=self.what)
        with theirs, stderr.open("ab") as out:
            fd = theirs.fileno()
            arguments = [sys.executable, "-c", code, str(fd), str(os.getpid())]
            process = subprocess.Popen(
                arguments, cwd=ROOT, stdout=out, stderr=out, pass_fds=[fd], start_new_session=True
            )
        runner = RunnerProcess(ours)
        runner.set_pid(process.pid)
        threading.Thread(target=wait_and_report, args=(process, runner), daemon=True).start()
        return runner


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No matter which: what is written down is tested elsewhere."""
    return sqlite_url


@pytest.fixture
def runners() -> SlowRunners:
    return SlowRunners()


@pytest.fixture
def shop(
    db: Database, tmp_path: Path, runners: SlowRunners, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerContext]:
    """A worker whose plans say that five examples fit into one pass."""

    def plan(*asked: Any) -> ExecutionPlan:
        return resolve_plan(*asked).model_copy(update={"micro_batch": 5})

    monkeypatch.setattr(supervisor, "resolve_plan", plan)
    settings = Settings.model_validate(TIMINGS | {"home": tmp_path})
    materialise_dataset(small_spec(**SPEC).data, settings.datasets)
    scratch = provision.Scratch(tmp_path / "scratch", "w")
    scratch.open()
    yield WorkerContext("w", settings, db, LocalStore(tmp_path / "store"), runners, scratch, threading.Event())
    scratch.close()


def ended(db: Database, job_id: str) -> tuple[str, int, list[str]]:
    """Status, attempts, and what happened to them."""
    with db.read() as connection:
        query = select(event.c.data).where(event.c.job_id == job_id, event.c.type == "warning")
        told = [f"{data['code']}: {data['message']}" for data in connection.execute(query).scalars()]
    state = state_of(db, job_id)
    return state["status"], state["attempt"], told


def test_an_evaluation_longer_than_the_limit(shop: WorkerContext, db: Database, runners: SlowRunners) -> None:
    """Of nine passes."""
    runners.kind = "evaluate"
    job_id = submitted(db, **SPEC)
    assert serve_one(shop, SLOT)
    assert ended(db, job_id) == ("succeeded", 1, [])


@pytest.mark.slow
def test_a_tile_of_an_analysis_longer_than_the_limit(shop: WorkerContext, db: Database, runners: SlowRunners) -> None:
    """The second one looks at all examples in 22 chunks, the last ten of which are slow."""
    job_id = submitted(db, **SPEC)
    assert serve_one(shop, SLOT)
    runners.kind, runners.after = "terrain", 22 + 22 + 12
    body = {"kind": "sharpness", "job": job_id, "measures": ["gradient_norm", "trace"]}
    asked = parse_analysis(json.dumps(body).encode(), body)
    analysis_id = create_analysis(db, asked, SubmitContext(OWNER, Limits(), 60.0)).job_id
    assert serve_one(shop, SLOT)
    assert ended(db, analysis_id) == ("succeeded", 1, [])


@pytest.mark.slow
def test_batch_norm_that_takes_long_to_estimate(shop: WorkerContext, db: Database, runners: SlowRunners) -> None:
    """Nine batches for the average; what follows is fast."""
    runners.kind = "batch_norm"
    model = {"name": "mlp", "hidden": [8], "batch_norm": True}
    job_id = submitted(db, **SPEC, model=model, swa={"start": "5st", "every": "1st"})
    assert serve_one(shop, SLOT)
    assert ended(db, job_id) == ("succeeded", 1, [])


def test_a_pass_that_spins_for_ever_is_a_stall(shop: WorkerContext, db: Database, runners: SlowRunners) -> None:
    """The seventh of an evaluation: it burns time, and says nothing."""
    runners.kind, runners.after, runners.what = "evaluate", 6, SPINS
    job_id = submitted(db, **SPEC)
    assert serve_one(shop, SLOT)
    assert ended(db, job_id) == ("queued", 1, ["attempt_lost: stalled"])


class FullForOneSecond(Backlog):
    """Then somebody has made room."""

    def __init__(self, spill: Path) -> None:
        super().__init__(spill)
        self._until = time.monotonic() + 1.0

    @property
    def full(self) -> bool:
        return time.monotonic() < self._until


def test_who_is_held_back_does_not_stall(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """The moment at which there is room again is no moment to judge: the runner has been waiting, not silent."""
    heart, backlog = heart_of(fence, stall_seconds=0.1), FullForOneSecond(tmp_path / "spill")
    ours, theirs = socket.socketpair()
    watch = RunnerWatch(
        RunnerProcess(ours), heart, backlog, Recorder(heart, LocalStore(tmp_path), backlog, None, tmp_path)
    )
    theirs.close()  # seen once the pipe is read again
    with ours:
        assert watch.watch_until_end().cut is KillReason.NO
