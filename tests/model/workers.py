"""Jobs and workers as the model has them: what they are like and what they hold; world.py moves them."""

import random
from typing import Final

from tests.model.books import Claimed
from tests.model.oracle import STEPS
from tests.model.protocol import CANCEL, PAUSE, RUN, Chunks, Kept
from worker.outcome import Observed, StopOrder

CHUNK_POINTS: Final = 2


class Job:
    """What a job is like: one in ten kills its workers at a step, one in twenty fails by itself."""

    __slots__ = ("errs_at", "kills_at", "max_retries")

    def __init__(self, chance: random.Random) -> None:
        nature = chance.random()
        self.kills_at = chance.randint(1, STEPS) if nature < 0.1 else STEPS + 1
        self.errs_at = chance.randint(1, STEPS) if nature > 0.95 else STEPS + 1
        self.max_retries = chance.randint(0, 2)


class Worker:
    """One supervisor with its runner. `turn` counts the job's claims: the truth that a token has to mirror."""

    __slots__ = (
        *("rate", "behind", "job", "attempt", "turn", "failures", "step", "weights", "after_step", "fresh"),
        *("beaten_at", "polled_at", "stopped", "cut_until", "excused", "hasty", "fetching", "fetch"),
        *("desired", "asked", "asked_at", "deaf", "stopping", "seen"),
    )

    def __init__(self, chance: random.Random) -> None:
        self.rate = chance.uniform(0.8, 1.2)  # seconds on its own clock for one of ours
        self.behind = chance.uniform(-60.0, 60.0)  # its wall clock
        self.job, self.attempt, self.turn, self.failures = -1, 0, 0, 0
        self.step = self.weights = self.after_step = 0
        self.fresh: list[tuple[int, int]] = []
        self.beaten_at = self.polled_at = self.cut_until = self.asked_at = 0.0
        self.stopped = self.stopping = self.excused = self.deaf = self.fetching = False
        self.hasty = 0  # deeds that it does before its next beat, whatever its clock says
        self.fetch: Kept | None = None
        self.desired, self.asked = RUN, StopOrder.NOTHING
        self.seen: Observed | None = None

    def begin(self, claimed: Claimed, turn: int, now: float) -> None:
        self.job, self.attempt, self.failures, self.turn = claimed.job, claimed.attempt, claimed.failures, turn
        self.step = self.weights = self.after_step = 0
        self.fresh, self.beaten_at, self.excused, self.hasty = [], now, False, 0
        self.fetching, self.fetch = claimed.checkpoint is not None, claimed.checkpoint
        self.desired, self.asked, self.seen = RUN, StopOrder.NOTHING, None

    def chunks(self) -> Chunks:
        """The points since the last checkpoint, two to a chunk."""
        pieces = range(0, len(self.fresh), CHUNK_POINTS)
        return {(self.after_step, at // CHUNK_POINTS): tuple(self.fresh[at : at + CHUNK_POINTS]) for at in pieces}

    def wish(self) -> StopOrder:
        """As worker/watch.py: a cancel before a stop before a pause."""
        if self.desired is CANCEL:
            return StopOrder.CANCEL
        if self.stopping:
            return StopOrder.STOP
        return StopOrder.PAUSE if self.desired is PAUSE else StopOrder.NOTHING
