"""What must hold whatever happens: the promises, judged by a truth of their own that no rule of the protocol knows."""

from typing import Final

from core.lifecycle import TERMINAL, TRANSITIONS, Status, Verb
from tests.model.books import Books
from tests.model.protocol import CANCEL, PAUSE, RUN, RUNNING, Kept, Point, Row

STEPS: Final = 5
_WISHES: Final = {Verb.CANCEL: CANCEL, Verb.PAUSE: PAUSE, Verb.RESUME: RUN}


class Violation(Exception):  # noqa: N818 - what the oracle found
    """The protocol broke a promise."""


def trained(weights: int, step: int) -> int:
    """The "weights" after one more step: a number that only the right past can produce, exact as a float64."""
    return (weights * 48_271 + step * 16_807 + 11) % 2_147_483_647


def undisturbed() -> list[Point]:
    """The curve of a run that nothing happens to: at each step the weights after it."""
    curve, weights = [], 0
    for step in range(STEPS):
        weights = trained(weights, step)
        curve.append((step, weights))
    return curve


CURVE: Final = tuple(undisturbed())


class Oracle:
    """It counts claims and losses itself, and looks at every row before and after."""

    def __init__(self, books: Books) -> None:
        self.books = books
        self.seen: list[Row] = list(books.rows)
        self.turns = [0 for _ in self.seen]  # how often each job was claimed: the truth that `attempt` has to mirror
        self.losses = [0 for _ in self.seen]  # since its last checkpoint
        self.failures = [0 for _ in self.seen]
        self.wishes = [RUN for _ in self.seen]
        self.refused = self.taken = self.marked = 0  # writes, jobs, checkpoints: that something was tried at all

    def rightful(self, job: int, turn: int) -> bool:
        """Whether who made the job's `turn`-th claim may still write."""
        return turn == self.turns[job] and self.books.rows[job].status is RUNNING

    def judge(self, what: str, *, accepted: bool, rightful: bool) -> None:
        if accepted and not rightful:
            raise Violation(f"{what} of a superseded attempt was accepted")
        if rightful and not accepted:
            raise Violation(f"{what} of the rightful attempt was refused")
        self.refused += not accepted

    def claimed(self, job: int, attempt: int, checkpoint: Kept | None) -> None:
        """A claim takes a waiting job, grows its attempt, and hands out where it stands with nothing behind it."""
        self.turns[job] += 1
        if self.seen[job].status is not Status.QUEUED:
            raise Violation("a job was claimed that did not wait")
        if attempt <= self.seen[job].attempt:
            raise Violation("a claim did not grow the attempt")
        step = checkpoint.step if checkpoint else 0
        if self.books.rows[job].curve() != list(CURVE[:step]):
            raise Violation("a claim left points that are not those before its checkpoint")

    def look(self, job: int) -> None:
        """After a deed: the row went a way that is allowed."""
        before, after = self.seen[job], self.books.rows[job]
        if before is after:
            return
        self.seen[job] = after
        if after.losses != self.losses[job]:
            raise Violation("losses are miscounted")
        if after.desired is not self.wishes[job]:
            raise Violation("a wish was forgotten")
        if after.attempt != before.attempt and after.status is not RUNNING:
            raise Violation("an attempt began without a claim")
        if after.status is before.status:
            if after.status in TERMINAL and after != before:
                raise Violation("what has ended was changed")
            return
        if before.status in TERMINAL:
            raise Violation("a terminal status changed")
        if after.status not in TRANSITIONS[before.status]:
            raise Violation("a status went a forbidden way")
        if after.status in TERMINAL:
            self._ended(job, after)

    def look_at_all(self) -> None:
        for job in range(len(self.seen)):
            self.look(job)

    def _ended(self, job: int, row: Row) -> None:
        curve = row.curve()
        if row.status is Status.SUCCEEDED and len(curve) != STEPS:
            raise Violation("a point is missing or there twice")
        if curve != list(CURVE[: len(curve)]):
            raise Violation("a point is missing, there twice, or not the undisturbed run's")
        if row.status is Status.CANCELLED and row.desired is not CANCEL:
            raise Violation("a job was cancelled that nobody wanted to cancel")

    def asked(self, job: int, verb: Verb) -> None:
        self.wishes[job] = _WISHES[verb]

    def lost(self, job: int) -> None:
        self.losses[job] += 1
        self.taken += 1

    def failed(self, job: int, *, budget: int, most_losses: int, errs: bool) -> None:
        """A job fails by its own error with nothing left of its budget, or after so many losses: never else."""
        if self.losses[job] >= most_losses:
            return
        if not errs or self.failures[job] != budget:
            raise Violation("a job failed before its budget was used up")
