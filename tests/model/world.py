"""A small world around the real domain functions: workers that die, sleep and wake, a lossy broker, a clock of ours.

Nothing of the protocol is modelled: claim, beat, fenced writes, checkpoints, finish and the reconciler are the
product's, on a real SQLite database whose clock is the world's. What is modelled is everything that can go wrong.
"""

import contextlib
import hashlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event, select

from core.db.session import open_database
from core.db.tables import job_state
from core.errors import Conflict
from core.jobs.beat import beat
from core.jobs.checkpoints import NewCheckpoint, mark_corrupt, record_checkpoint
from core.jobs.fence import Fence, Fenced
from core.jobs.finish import Ending, finish, give_back
from core.jobs.metrics import Chunk, Points, record_points, series
from core.jobs.reconcile import Reconciler
from core.jobs.verbs import cancel, pause, resume
from core.lifecycle import TERMINAL, Desired, Status
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER, HeardHints, new_checkpoint, set_state, state_of, submitted, taken

STEPS: Final = 6
MAX_LOSSES: Final = 8


class Violation(Exception):  # noqa: N818 - what the oracle found
    """The protocol broke a promise."""


def chain(before: str, step: int) -> str:
    """The "weights" after a step: a digest that only the right past can produce."""
    return hashlib.blake2b(f"{before}|{step}".encode(), digest_size=6).hexdigest()


def weights(step: int) -> str:
    value = "0"
    for number in range(step):
        value = chain(value, number)
    return value


def loss(digest: str) -> float:
    return int(digest, 16) / 1e6


@dataclass
class Worker:
    """One supervisor with its runner. `turn` counts the job's claims: the truth that a token has to mirror."""

    rate: float
    job: str | None = None
    attempt: int = 0
    turn: int = 0
    step: int = 0
    weights: str = "0"
    after_step: int = 0
    fresh: list[tuple[int, float]] = field(default_factory=list)
    beaten_at: float = 0.0
    stopped: bool = False

    @property
    def fence(self) -> Fence:
        return Fence(self.job or "", self.attempt)


class World:
    """Time, workers, hints, objects. `control` names a part of the protocol to leave out."""

    def __init__(self, seed: int, folder: Path, url: str, control: str = "") -> None:
        self.chance = random.Random(seed)
        self.time = 0.0  # as every worker's own clock counts it, only faster or slower
        self.database_clock = 1_800_000_000.0  # ahead of `time` by this much, until somebody sets it
        self.control = control
        self.db = open_database(url, pool_size=1)
        for engine in (self.db._reader, self.db._writer):
            self._lend_clock(engine)
        self.hints = HeardHints()
        settings = Settings(home=folder, max_losses=MAX_LOSSES)
        self.reconciler = Reconciler(self.db, LocalStore(folder / "store"), self.hints, settings)
        self.objects: dict[str, str] = {}
        self.ended: dict[str, str] = {}
        self.turns = {submitted(self.db, steps=STEPS): 0 for _ in range(self.chance.randint(1, 3))}
        self.workers = [self.worker() for _ in range(self.chance.randint(2, 4))]

    def _lend_clock(self, engine: Engine) -> None:
        def connected(connection: Any, _: object) -> None:
            connection.create_function("julianday", 1, self._julian_day)
            connection.execute("PRAGMA synchronous=OFF")

        event.listen(engine, "connect", connected)

    def _julian_day(self, _: object) -> float:
        return (self.time + self.database_clock) / 86400.0 + 2440587.5

    def worker(self) -> Worker:
        """A new one, after a start or a kill; its clock runs too fast or too slow."""
        return Worker(rate=self.chance.uniform(0.8, 1.2))

    # what one worker does next

    def act(self, worker: Worker) -> None:
        if worker.stopped:
            return
        if worker.job is None:
            self._look_for_work(worker)
        elif (self.time - worker.beaten_at) * worker.rate > 3.0 and self.chance.random() < 0.5:
            self._beat(worker)
        elif worker.step == STEPS:
            self._end(worker, Ending(Status.SUCCEEDED, "completed"))
        else:
            self._train(worker)

    def _look_for_work(self, worker: Worker) -> None:
        if self.hints.heard:
            self.hints.heard.pop(self.chance.randrange(len(self.hints.heard)))
        elif self.chance.random() < 0.7:
            return
        found = taken(self.db)
        if found is None:
            return
        self.turns[found.job_id] += 1
        if self.control == "the attempt does not grow":
            set_state(self.db, found.job_id, attempt=1)
        worker.job, worker.turn = found.job_id, self.turns[found.job_id]
        worker.attempt = state_of(self.db, found.job_id)["attempt"]
        worker.fresh, worker.beaten_at = [], self.time
        start = found.checkpoint
        while start is not None and self.chance.random() < 0.1:
            start = mark_corrupt(self.db, worker.fence, start.id)
        worker.step = worker.after_step = start.step if start else 0
        worker.weights = self.objects[start.key] if start else "0"

    def _train(self, worker: Worker) -> None:
        dice = self.chance.random()
        if dice < 0.45:
            worker.weights = chain(worker.weights, worker.step)
            worker.fresh.append((worker.step, loss(worker.weights)))
            worker.step += 1
        elif dice < 0.6:
            self.write(worker, "points", lambda fence: record_points(self.db, fence, self.chunks(worker)))
        elif dice < 0.95:
            self._checkpoint(worker)
        else:
            stop = {"cause": "worker stopping", "lost": False, "max_losses": MAX_LOSSES}
            if self.write(worker, "stop", lambda fence: give_back(self.db, fence, **stop)):  # type: ignore[arg-type]
                worker.job = None

    def _checkpoint(self, worker: Worker) -> None:
        if worker.step == worker.after_step:
            return
        row: NewCheckpoint = new_checkpoint(worker.fence, worker.step)
        self.objects[row.key] = worker.weights
        chunks = self.chunks(worker)

        def record(fence: Fence) -> object:
            return record_checkpoint(self.db, fence, row, chunks, resumable=True)

        if self.write(worker, "checkpoint", record, again=True):
            worker.after_step, worker.fresh = worker.step, []

    def _beat(self, worker: Worker) -> None:
        with self.judged(worker, "beat") as verdict:
            desired = beat(self.db, self.fence_of(worker, "beat"), lease_seconds=12.0)
            verdict.accepted = desired is not None
        if desired is None:
            worker.job = None
            return
        worker.beaten_at = self.time
        if desired is Desired.CANCEL:
            self._end(worker, Ending(Status.CANCELLED, "cancelled"))
        elif desired is Desired.PAUSE:
            stop = {"cause": "pause", "lost": False, "max_losses": MAX_LOSSES}
            self.write(worker, "pause", lambda fence: give_back(self.db, fence, **stop))  # type: ignore[arg-type]
            worker.job = None

    def _end(self, worker: Worker, ending: Ending) -> None:
        chunks = self.chunks(worker)
        self.write(worker, "finish", lambda fence: finish(self.db, fence, ending, chunks), again=True)
        worker.job = None

    def chunks(self, worker: Worker) -> list[Chunk]:
        steps = [step for step, _ in worker.fresh]
        points = Points("loss", steps, [value for _, value in worker.fresh], [0.0] * len(steps))
        return [Chunk("loss", worker.after_step, 0, points)]

    # the oracle

    def write(self, worker: Worker, what: str, deed: Callable[[Fence], object], *, again: bool = False) -> bool:
        """Do it under the worker's fence; now and then twice, as after a commit whose answer was lost."""
        with self.judged(worker, what) as verdict:
            try:
                deed(self.fence_of(worker, what))
            except Fenced:
                worker.job = None
                verdict.accepted = False
        if verdict.accepted and again and self.chance.random() < 0.3:
            deed(self.fence_of(worker, what))
        return verdict.accepted

    def fence_of(self, worker: Worker, what: str) -> Fence:
        """What the worker says who it is; the controls let it say whatever the database wants to hear."""
        lies = self.control == "no fence" or (self.control == "checkpoints are not fenced" and what == "checkpoint")
        if lies and worker.job is not None:
            return Fence(worker.job, state_of(self.db, worker.job)["attempt"])
        return worker.fence

    @contextmanager
    def judged(self, worker: Worker, what: str) -> Iterator["Verdict"]:
        """A write must go in exactly when its worker made the job's newest claim and the job is still running."""
        job = worker.job or ""
        state = state_of(self.db, job)
        rightful = state["status"] == "running" and worker.turn == self.turns[job]
        verdict = Verdict()
        yield verdict
        if verdict.accepted and not rightful:
            raise Violation(f"{what} of a superseded attempt was accepted")
        if rightful and not verdict.accepted:
            raise Violation(f"{what} of the rightful attempt was refused")

    def check(self) -> None:
        """After every action: what has ended stays as it ended, and ended with the one right result."""
        with self.db.read() as connection:
            found = connection.execute(select(job_state.c.job_id, job_state.c.status)).all()
        for job, status in found:
            if self.ended.get(job, status) != status:
                raise Violation(f"terminal status changed from {self.ended[job]} to {status}")
            if status in TERMINAL and job not in self.ended:
                self.ended[job] = status
                self._check_points(job, whole=status == "succeeded")

    def _check_points(self, job: str, *, whole: bool) -> None:
        found = series(self.db, job).get("loss")
        steps = list(found.steps) if found else []
        if steps != list(range(STEPS if whole else len(steps))):
            raise Violation(f"steps lost or doubled: {steps}")
        if found and list(found.values) != [loss(weights(step + 1)) for step in steps]:
            raise Violation("a point does not belong to this run")

    def wish(self) -> None:
        """An owner changes his mind."""
        job = self.chance.choice(list(self.turns))
        if job in self.ended:
            return
        verb = cancel if self.chance.random() < 0.1 else self.chance.choice([pause, resume, resume])
        with contextlib.suppress(Conflict):  # it ended, or is about to be cancelled
            verb(self.db, OWNER, job)

    def reconcile(self) -> None:
        if self.control != "no reconciler":
            self.reconciler.leases()
            self.reconciler.wants()
            self.reconciler.send()


@dataclass
class Verdict:
    """Whether the database took the write."""

    accepted: bool = True
