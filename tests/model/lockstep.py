"""The model's books with the product's own functions beside them, on a real database: both do each deed, and after
each deed both must hold the same.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, event, select

from core.db.session import Database, open_database
from core.db.tables import checkpoint, job_state
from core.errors import Conflict
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.checkpoints.records import NewCheckpoint, mark_corrupt, record_checkpoint
from core.jobs.metrics.chunks import Chunk, MetricPoints, read_columns, record_points
from core.jobs.verbs import request_cancel, request_pause, request_resume
from core.lifecycle import Desired, Status, Verb
from core.settings import Settings
from core.store.local import LocalStore
from tests.model.books import Books, Claimed
from tests.model.protocol import Chunks, Kept, Protocol, Row
from tests.support.jobs import OWNER, HeardHints, new_checkpoint, submitted, taken

VERBS: Final = {Verb.CANCEL: request_cancel, Verb.PAUSE: request_pause, Verb.RESUME: request_resume}
EPOCH_DAY: Final = 2440587.5
AGE_STEP: Final = 60.0  # seconds that a point of priority is worth


class Divergence(Exception):  # noqa: N818 - what was found
    """The model and the product do not agree: one of them is wrong."""


def told(seconds: float) -> float:
    """What SQLite makes of a clock at `seconds` since 1970: days, and seconds again, rounded on the way."""
    return ((seconds / 86400.0 + EPOCH_DAY) - EPOCH_DAY) * 86400.0


class Lockstep(Books):
    """`priorities` of the jobs, which are submitted a second apart."""

    def __init__(self, protocol: Protocol, priorities: list[int], folder: Path, url: str, began: float) -> None:
        super().__init__(protocol, [began + number - AGE_STEP * each for number, each in enumerate(priorities)])
        self.at = began
        self.db: Database = open_database(url, pool_size=1)
        for engine in (self.db._reader, self.db._writer):
            self._lend_clock(engine)
        self.heard = HeardHints()
        settings = Settings(home=folder, max_losses=protocol.times.max_losses)
        self.reconciler = Reconciler(self.db, LocalStore(folder / "store"), self.heard, settings)
        self.ids = [self._submit(began + number, each) for number, each in enumerate(priorities)]
        self.made: dict[int, NewCheckpoint] = {}
        self.compare("submit")

    def _lend_clock(self, engine: Engine) -> None:
        def connected(connection: Any, _: object) -> None:
            connection.create_function("julianday", 1, lambda _: self.at / 86400.0 + EPOCH_DAY)
            connection.execute("PRAGMA synchronous=OFF")

        event.listen(engine, "connect", connected)

    def _submit(self, at: float, priority: int) -> str:
        self.at = at
        return submitted(self.db, priority=priority)

    def _fence(self, job: int, attempt: int) -> Fence:
        return Fence(self.ids[job], attempt)

    # the same deeds, each done twice

    def claim(self, now: float) -> Claimed | None:
        self.at = now
        mine, real = super().claim(told(now)), taken(self.db, self.protocol.times.lease)
        found = real and (self.ids.index(real.job_id), real.attempt, real.checkpoint and real.checkpoint.id)
        wanted = mine and (mine.job, mine.attempt, mine.checkpoint and self.made[mine.checkpoint.id].id)
        self.agree("claim", wanted, found)
        return mine

    def beat(self, job: int, attempt: int, now: float) -> Desired | None:
        self.at = now
        mine = super().beat(job, attempt, told(now))
        self.agree(
            "beat", mine, record_heartbeat(self.db, self._fence(job, attempt), lease_seconds=self.protocol.times.lease)
        )
        return mine

    def record(self, job: int, attempt: int, chunks: Chunks) -> bool:
        real = self._accepts(lambda: record_points(self.db, self._fence(job, attempt), columns_of(chunks)))
        return self.agree("points", super().record(job, attempt, chunks), real)

    def checkpoint(self, job: int, attempt: int, new: Kept, chunks: Chunks) -> bool:
        fence = self._fence(job, attempt)
        row = self.made.setdefault(new.id, new_checkpoint(fence, new.step))
        real = self._accepts(lambda: record_checkpoint(self.db, fence, row, columns_of(chunks), resumable=True))
        return self.agree("checkpoint", super().checkpoint(job, attempt, new, chunks), real)

    def corrupt(self, job: int, attempt: int, bad: Kept) -> bool:
        real = self._accepts(lambda: mark_corrupt(self.db, self._fence(job, attempt), self.made[bad.id].id))
        return self.agree("mark", super().corrupt(job, attempt, bad), real)

    def finish(self, job: int, attempt: int, status: Status, chunks: Chunks) -> bool:
        fence = self._fence(job, attempt)
        real = self._accepts(lambda: finish_job(self.db, fence, TerminalState(status), columns_of(chunks)))
        return self.agree("finish", super().finish(job, attempt, status, chunks), real)

    def give_back(self, job: int, attempt: int, *, lost: bool, failed: bool) -> bool:
        fence, most = self._fence(job, attempt), self.protocol.times.max_losses
        deed = {"cause": "as the model does", "lost": lost, "failed": failed, "max_losses": most}
        real = self._accepts(lambda: give_back(self.db, fence, **deed))  # type: ignore[arg-type]
        return self.agree("give-back", super().give_back(job, attempt, lost=lost, failed=failed), real)

    def ask(self, job: int, verb: Verb) -> bool:
        real = self._accepts(lambda: VERBS[verb](self.db, OWNER, self.ids[job]))
        return self.agree(f"ask to {verb}", super().ask(job, verb), real)

    def leases(self, now: float) -> list[int]:
        self.at = now
        mine = super().leases(told(now))
        self.agree("leases", len(mine), self.reconciler.reclaim_expired_leases())
        return mine

    def wants(self) -> None:
        super().wants()
        self.reconciler.apply_desired_states()
        self.compare("wants")

    def send(self, now: float) -> int:
        self.at = now
        before = len(self.heard.heard)
        self.reconciler.send_hints()
        return self.agree("send", super().send(told(now)), len(self.heard.heard) - before)

    def _accepts(self, deed: Callable[[], object]) -> bool:
        try:
            deed()
        except (Fenced, Conflict):
            return False
        return True

    # and both hold the same

    def agree(self, deed: str, mine: Any, real: Any) -> Any:
        if mine != real:
            raise Divergence(f"{deed}: the model says {mine}, the product {real}")
        self.compare(deed)
        return mine

    def compare(self, deed: str) -> None:
        for job, (row, real) in enumerate(zip(self.rows, self._real(), strict=True)):
            if (mine := self._shown(row)) != real:
                raise Divergence(f"after {deed}, job {job}: the model holds {mine}, the product {real}")

    def _shown(self, row: Row) -> list[Any]:
        kept = [(self.made[one.id].id, one.step) for one in row.kept]
        here = row.checkpoint and self.made[row.checkpoint.id].id
        state = (row.status, row.desired, row.attempt, row.losses, row.failures, row.published_at)
        return [*state, row.lease_until, row.spared_until, here, kept, row.curve()]

    def _real(self) -> list[list[Any]]:
        state, row = job_state.c, checkpoint.c
        wanted = ("job_id", "status", "desired", "attempt", "losses", "failures", "published_at")
        wanted += ("lease_until", "spared_until", "checkpoint_id")
        good = select(row.job_id, row.id, row.step).where(row.status == "good").order_by(row.step)
        with self.db.read() as connection:
            states = connection.execute(select(*(state[name] for name in wanted))).all()
            kept = connection.execute(good).all()
        known = {job_id: rest for job_id, *rest in states}
        return [
            [*known[job_id], [(id_, step) for of, id_, step in kept if of == job_id], self._curve(job_id)]
            for job_id in self.ids
        ]

    def _curve(self, job_id: str) -> list[tuple[int, int]]:
        found = read_columns(self.db, job_id).get("loss")
        return [] if found is None else list(zip(found.steps, map(int, found.values), strict=True))


def columns_of(chunks: Chunks) -> list[Chunk]:
    """The model's chunks as the product has them."""
    found = []
    for (after, number), points in chunks.items():
        steps, values = [step for step, _ in points], [float(value) for _, value in points]
        found.append(Chunk("loss", after, number, MetricPoints("loss", steps, values, [0.0] * len(points))))
    return found
