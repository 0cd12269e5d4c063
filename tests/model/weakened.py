"""The protocol with one rule broken, or a world with one broken habit: what the oracle has to find."""

from typing import ClassVar, Final, NamedTuple

from core.lifecycle import Desired, Status, Verb
from tests.model.protocol import Chunks, Kept, Protocol, Row
from tests.model.workers import Worker
from tests.model.world import World


class NoFence(Protocol):
    def owns(self, row: Row, attempt: int) -> bool:
        return True


class StatusIsNoFence(Protocol):
    """Only the attempt is compared: what was given back or taken away still takes writes."""

    def owns(self, row: Row, attempt: int) -> bool:
        return row.attempt == attempt


class AttemptIsNoFence(Protocol):
    """Only the status is compared, as some queues do."""

    def owns(self, row: Row, attempt: int) -> bool:
        return row.status is Status.RUNNING


class UnfencedBeat(Protocol):
    def beat(self, row: Row, attempt: int, now: float) -> Row | None:
        return super().beat(row, row.attempt, now)


class UnfencedPoints(Protocol):
    def record(self, row: Row, attempt: int, chunks: Chunks) -> Row | None:
        return super().record(row, row.attempt, chunks)


class UnfencedCheckpoint(Protocol):
    def checkpoint(self, row: Row, attempt: int, new: Kept, chunks: Chunks) -> Row | None:
        return super().checkpoint(row, row.attempt, new, chunks)


class UnfencedMark(Protocol):
    def corrupt(self, row: Row, attempt: int, bad: Kept) -> Row | None:
        return super().corrupt(row, row.attempt, bad)


class UnfencedFinish(Protocol):
    def finish(self, row: Row, attempt: int, status: Status, chunks: Chunks) -> Row | None:
        return super().finish(row, row.attempt, status, chunks)


class UnfencedGiveBack(Protocol):
    def give_back(self, row: Row, attempt: int, *, lost: bool, failed: bool) -> Row | None:
        return super().give_back(row, row.attempt, lost=lost, failed=failed)


class TheAttemptStays(Protocol):
    def claim(self, row: Row, now: float) -> Row:
        return super().claim(row, now)._replace(attempt=1)


class TheTailStays(Protocol):
    """A claim does not take back the points behind its checkpoint."""

    def claim(self, row: Row, now: float) -> Row:
        return super().claim(row, now)._replace(points=row.points)


class TheTailOfADamagedCheckpointStays(Protocol):
    def corrupt(self, row: Row, attempt: int, bad: Kept) -> Row | None:
        after = super().corrupt(row, attempt, bad)
        return after and after._replace(points=row.points)


class ACheckpointKeepsItsPointsBack(Protocol):
    """They are not in its transaction."""

    def checkpoint(self, row: Row, attempt: int, new: Kept, chunks: Chunks) -> Row | None:
        return super().checkpoint(row, attempt, new, {})


class TheCheckpointInUseGoes(Protocol):
    """What is kept is the oldest."""

    def checkpoint(self, row: Row, attempt: int, new: Kept, chunks: Chunks) -> Row | None:
        after = super().checkpoint(row, attempt, new, chunks)
        return after and after._replace(kept=after.kept[:1])


class FinishForgetsTheLastPoints(Protocol):
    def finish(self, row: Row, attempt: int, status: Status, chunks: Chunks) -> Row | None:
        return super().finish(row, attempt, status, {})


class ARepeatedFinishIsRefused(Protocol):
    def finish(self, row: Row, attempt: int, status: Status, chunks: Chunks) -> Row | None:
        return super().finish(row, attempt, status, chunks) if self.owns(row, attempt) else None


class ChunksAreAppended(Protocol):
    def put(self, points: Chunks, chunks: Chunks) -> Chunks:
        return {**points, **{place: (*points.get(place, ()), *chunk) for place, chunk in chunks.items()}}


class NoGap(Protocol):
    def is_gap(self, silence: float) -> bool:
        return False


class AClockSetBackIsNoGap(Protocol):
    def is_gap(self, silence: float) -> bool:
        return silence > self.times.gap


class EveryGapExtends(Protocol):
    """Also the lease of a worker that has not beaten since the last one."""

    def is_owed(self, row: Row, now: float) -> bool:
        return True


class OneGapAMinute(Protocol):
    """Time alone decides whether a lease is extended again, and not that its worker has beaten."""

    def is_owed(self, row: Row, now: float) -> bool:
        spared_at = None if row.spared_until is None else row.spared_until - self.times.lease
        return spared_at is None or not 0 <= now - spared_at < 60.0


class LeasesNeverEnd(Protocol):
    def is_lost(self, row: Row, now: float) -> bool:
        return False


class NoBudget(Protocol):
    """A job that kills its workers does so for ever."""

    def take_back(self, row: Row, *, lost: bool) -> Row:
        return super().take_back(row._replace(losses=-1), lost=lost)._replace(losses=row.losses + lost)


class ACheckpointForgivesNothing(Protocol):
    def checkpoint(self, row: Row, attempt: int, new: Kept, chunks: Chunks) -> Row | None:
        after = super().checkpoint(row, attempt, new, chunks)
        return after and after._replace(losses=row.losses)


class AStopCountsAsALoss(Protocol):
    def give_back(self, row: Row, attempt: int, *, lost: bool, failed: bool) -> Row | None:
        return super().give_back(row, attempt, lost=True, failed=False)


class LossesForgetTheWish(Protocol):
    """A lost job is queued, whatever its owner wants."""

    def take_back(self, row: Row, *, lost: bool) -> Row:
        return super().take_back(row._replace(desired=Desired.RUN), lost=lost)


class AnEndIsNotFinal(Protocol):
    """A verb is taken without a look at the status."""

    def ask(self, row: Row, verb: Verb) -> Row | None:
        wish = {Verb.CANCEL: Desired.CANCEL, Verb.PAUSE: Desired.PAUSE, Verb.RESUME: Desired.RUN}[verb]
        return row._replace(desired=wish, status=Status.QUEUED) if verb is Verb.RESUME else super().ask(row, verb)


class NoWishIsMet(Protocol):
    """Of jobs that nobody runs."""

    def settle(self, row: Row) -> Row:
        return row


class RunningJobsAreClaimed(Protocol):
    """A claim takes an expired lease away by itself, and the reconciler knows nothing of it."""

    def waits(self, row: Row) -> bool:
        return row.desired is Desired.RUN and row.status in {Status.QUEUED, Status.RUNNING}


class HintsAreSentOnce(Protocol):
    """The broker is trusted: nobody looks for what was not heard."""

    def unsent(self, row: Row, now: float) -> bool:
        return row.status is Status.QUEUED and row.published_at is None


class NoReconciler(World):
    def reconcile(self) -> None:
        """Nobody repairs anything."""


class NobodyPolls(World):
    polls: ClassVar[bool] = False


class WorkersClocksAreTrusted(World):
    """A lease is counted from what the worker says that it is."""

    def now(self, worker: Worker | None = None) -> float:
        return super().now() + (worker.behind if worker else 0.0)


class LeavesWithoutACheckpoint(World):
    checkpoints_before_leaving: ClassVar[bool] = False


class BeatsCarryNoWish(World):
    def act(self, worker: Worker) -> None:
        worker.desired = Desired.RUN
        super().act(worker)


class EagerCare(World):
    """It takes a store's newest object for an orphan."""

    def care(self) -> None:
        self.store.discard(self.made)


class Control(NamedTuple):
    """What is broken, and what the oracle says to it."""

    protocol: type[Protocol]
    world: type[World]
    violation: str


SUPERSEDED: Final = "of a superseded attempt was accepted"
CONTROLS: Final = (
    Control(NoFence, World, SUPERSEDED),
    Control(StatusIsNoFence, World, SUPERSEDED),
    Control(AttemptIsNoFence, World, SUPERSEDED),
    Control(UnfencedBeat, World, "beat of a superseded attempt was accepted"),
    Control(UnfencedPoints, World, "points of a superseded attempt was accepted"),
    Control(UnfencedCheckpoint, World, "checkpoint of a superseded attempt was accepted"),
    Control(UnfencedMark, World, "mark of a superseded attempt was accepted"),
    Control(UnfencedFinish, World, "finish of a superseded attempt was accepted"),
    Control(UnfencedGiveBack, World, "give-back of a superseded attempt was accepted"),
    Control(TheAttemptStays, World, "a claim did not grow the attempt"),
    Control(TheTailStays, World, "a claim left points"),
    Control(TheTailOfADamagedCheckpointStays, World, "points"),
    Control(ACheckpointKeepsItsPointsBack, World, "a claim left points"),
    Control(TheCheckpointInUseGoes, World, "the checkpoint that a claim handed out is gone"),
    Control(FinishForgetsTheLastPoints, World, "a point is missing"),
    Control(ARepeatedFinishIsRefused, World, "a repeated write was no repetition"),
    Control(ChunksAreAppended, World, "a repeated write was no repetition"),
    Control(NoGap, World, "a job was taken from a worker that is fine"),
    Control(AClockSetBackIsNoGap, World, "not met in time|never end"),
    Control(OneGapAMinute, World, "a job was taken from a worker that is fine"),
    Control(LeasesNeverEnd, World, "never end"),
    Control(NoBudget, World, "never end"),
    Control(ACheckpointForgivesNothing, World, "losses are miscounted"),
    Control(AStopCountsAsALoss, World, "losses are miscounted"),
    Control(LossesForgetTheWish, World, "a wish was forgotten"),
    Control(AnEndIsNotFinal, World, "a terminal status changed"),
    Control(NoWishIsMet, World, "not met in time"),
    Control(RunningJobsAreClaimed, World, "a job was claimed that did not wait"),
    Control(Protocol, NoReconciler, "never end"),
    Control(HintsAreSentOnce, NobodyPolls, "never end"),
    Control(Protocol, WorkersClocksAreTrusted, "a job was taken from a worker that is fine"),
    Control(Protocol, LeavesWithoutACheckpoint, "a pause or a stop cost steps"),
    Control(Protocol, BeatsCarryNoWish, "not met in time"),
    Control(Protocol, EagerCare, "the checkpoint that a claim handed out is gone"),
)
