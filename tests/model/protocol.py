"""The database's side of the protocol as pure functions: a row and a deed give the row after it, or None: refused.

A second, independent writing of core/jobs in a few lines, thousands of times as fast as the first. What is pure in the
product is not written again: the transitions and what verbs and wishes mean are core/lifecycle's own. That both
writings say the same is what test_lockstep.py shows.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from core.lifecycle import TERMINAL, Desired, Status, Verb, check_transition, desired_after, settled_status
from core.settings import Settings
from worker.watch import PAUSE_SECONDS

Point = tuple[int, int]  # a step, and the weights after it
Place = tuple[int, int]  # of a chunk: after_step, number
Chunks = Mapping[Place, tuple[Point, ...]]

RUN, PAUSE, CANCEL = Desired.RUN, Desired.PAUSE, Desired.CANCEL
QUEUED, RUNNING = Status.QUEUED, Status.RUNNING
KEEP_LAST: Final = 2
NONE: Final[Chunks] = MappingProxyType({})
_TOLD: Final = {RUN: QUEUED, PAUSE: Status.PAUSED, CANCEL: Status.CANCELLED}


class Times(NamedTuple):
    """The service's own timings, in seconds, and its budget of losses."""

    lease: float
    beat: float
    poll: float
    gap: float
    hint_after: float
    outage: float
    cancel_grace: float
    stop_grace: float
    pause_grace: float
    max_losses: int

    @classmethod
    def of(cls, settings: Settings) -> "Times":
        return cls(
            settings.lease_seconds,
            settings.beat_seconds,
            settings.poll_seconds,
            settings.gap_seconds,
            settings.hint_after_seconds,
            settings.outage_seconds,
            settings.cancel_grace_seconds,
            settings.stop_grace_seconds,
            PAUSE_SECONDS,
            settings.max_losses,
        )


class Kept(NamedTuple):
    """A checkpoint: its row, and in `weights` what its object holds."""

    id: int
    step: int
    weights: int


class Row(NamedTuple):
    """A job: its state, its good checkpoints by step, its points by chunk."""

    rank: float
    status: Status = QUEUED
    desired: Desired = RUN
    attempt: int = 0
    losses: int = 0
    failures: int = 0
    lease_until: float | None = None
    spared_until: float | None = None  # the lease that a gap gave
    published_at: float | None = None
    checkpoint: Kept | None = None
    kept: tuple[Kept, ...] = ()
    points: Chunks = NONE

    def curve(self) -> list[Point]:
        """All points in order, as a reader gets them."""
        return [point for place in sorted(self.points) for point in self.points[place]]


def moved(row: Row, status: Status, **columns: Any) -> Row:
    """The next status, as the one table allows it; nobody holds the job any more."""
    check_transition(row.status, status)
    if status is QUEUED:
        columns["published_at"] = None
    return row._replace(status=status, lease_until=None, **columns)


class Protocol:
    """The rules. A control is a subclass in which one of them is broken."""

    def __init__(self, times: Times) -> None:
        self.times = times

    # what a worker does

    def waits(self, row: Row) -> bool:
        return row.status is QUEUED and row.desired is RUN

    def claim(self, row: Row, now: float) -> Row:
        return row._replace(
            status=RUNNING,
            attempt=row.attempt + 1,
            lease_until=now + self.times.lease,
            points=self.before(row.points, row.checkpoint),
        )

    def before(self, points: Chunks, checkpoint: Kept | None) -> Chunks:
        """The points that a checkpoint stands on; what came later is written again."""
        step = checkpoint.step if checkpoint else 0
        return {place: chunk for place, chunk in points.items() if place[0] < step}

    def owns(self, row: Row, attempt: int) -> bool:
        """The fence."""
        return row.attempt == attempt and row.status is RUNNING

    def beat(self, row: Row, attempt: int, now: float) -> Row | None:
        return row._replace(lease_until=now + self.times.lease) if self.owns(row, attempt) else None

    def put(self, points: Chunks, chunks: Chunks) -> Chunks:
        """A chunk that is there already is replaced, so that a repeated write does no harm."""
        return {**points, **chunks}

    def record(self, row: Row, attempt: int, chunks: Chunks) -> Row | None:
        return row._replace(points=self.put(row.points, chunks)) if self.owns(row, attempt) else None

    def checkpoint(self, row: Row, attempt: int, new: Kept, chunks: Chunks) -> Row | None:
        if not self.owns(row, attempt):
            return None
        if new in row.kept:
            return row
        kept = (*(old for old in row.kept if old.step < new.step), new)[-KEEP_LAST:]
        return row._replace(checkpoint=new, kept=kept, losses=0, points=self.put(row.points, chunks))

    def corrupt(self, row: Row, attempt: int, bad: Kept) -> Row | None:
        if not self.owns(row, attempt):
            return None
        kept = tuple(one for one in row.kept if one != bad)
        if row.checkpoint != bad:
            return row._replace(kept=kept)
        older = kept[-1] if kept else None
        return row._replace(checkpoint=older, kept=kept, points=self.before(row.points, older))

    def finish(self, row: Row, attempt: int, status: Status, chunks: Chunks) -> Row | None:
        if row.attempt == attempt and row.status is status:
            return row  # the same call again
        return moved(row, status, points=self.put(row.points, chunks)) if self.owns(row, attempt) else None

    def give_back(self, row: Row, attempt: int, *, lost: bool, failed: bool) -> Row | None:
        if not self.owns(row, attempt):
            return None
        if failed and not lost:
            return moved(row, _TOLD[row.desired], failures=row.failures + 1)
        return self.take_back(row, lost=lost)

    def take_back(self, row: Row, *, lost: bool) -> Row:
        losses = row.losses + lost
        given_up = lost and row.desired is RUN and losses >= self.times.max_losses
        return moved(row, Status.FAILED if given_up else _TOLD[row.desired], losses=losses)

    # what an owner does

    def ask(self, row: Row, verb: Verb) -> Row | None:
        desired = desired_after(row.status, row.desired, verb)
        if desired is None:
            return None
        if desired is row.desired or row.status in TERMINAL:
            return row
        return self.settle(row._replace(desired=desired))

    # what a reconciler does

    def is_gap(self, silence: float) -> bool:
        return not 0 <= silence <= self.times.gap

    def spare(self, row: Row, now: float) -> Row:
        """After a gap: one more lease for a worker that could not beat, and not twice before it has beaten."""
        if row.status is not RUNNING or row.lease_until is None or not self.is_owed(row, now):
            return row
        until = now + self.times.lease
        return row._replace(lease_until=until, spared_until=until)

    def is_owed(self, row: Row, now: float) -> bool:
        """Whether it has not beaten since the gap, but since its last extension; or the clock went back."""
        left = (row.lease_until or 0.0) - now
        return left > self.times.lease or (self._unbeaten(left) and row.lease_until != row.spared_until)

    def _unbeaten(self, left: float) -> bool:
        return left < self.times.lease - self.times.beat

    def is_lost(self, row: Row, now: float) -> bool:
        return row.status is RUNNING and row.lease_until is not None and row.lease_until < now

    def settle(self, row: Row) -> Row:
        target = settled_status(row.status, row.desired)
        return row if target is None else moved(row, target)

    def unsent(self, row: Row, now: float) -> bool:
        at = row.published_at
        return row.status is QUEUED and (at is None or not 0 <= now - at <= self.times.hint_after)
