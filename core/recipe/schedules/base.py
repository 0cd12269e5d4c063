"""A schedule is arithmetic: a pure function from the optimizer step t = 0, 1, … to the learning rate of that step.

It has no state, so a preview shows what a training does, and a resumed training cannot get it wrong. The one that
listens to evaluations (plateau) keeps what it heard in a small value, and is a pure function of step and value.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar, Self

from core.errors import FieldProblem
from core.recipe.component import Component
from core.recipe.duration import Duration, RunLength

LearningRate = Callable[[int], float]
Momentum = Callable[[int], float]
MOST_CYCLES = 10_000  # in one run: each end of a cycle is evaluated and kept


@dataclass(frozen=True, slots=True)
class PlateauState:
    """What a schedule keeps of the evaluations so far: the best value, how many in a row were none better, how many
    more do not count, and how often the rate was reduced.
    """

    best: float | None = None
    wait: int = 0
    cooldown: int = 0
    reductions: int = 0


class ScheduleSpec(Component):
    """Linear warm-up over `warmup`, lr (t + 1) / W for t < W; then the schedule's own clock starts at 0."""

    steady: ClassVar[bool] = False
    """Whether the rate is the same at every step once warm-up is over."""
    fills: ClassVar[str | None] = None
    """The field whose default is what is left of the run after warm-up."""
    warmup: Duration = Duration.of_steps(0)

    @abstractmethod
    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        """The rate u = 0, 1, … steps after warm-up; `lr` is the optimizer's, `rest` the steps that are then left."""

    def compile_rate(self, lr: float, run: RunLength) -> LearningRate:
        """T -> learning rate, all durations converted once; of a schedule that listens, before it heard anything."""
        warm, top = self.warmup.steps(run), self.warmup_target(lr)
        curve = self.rate_after_warmup(lr, run, max(1, run.total_steps - warm))

        def rate(t: int) -> float:
            return top * (t + 1) / warm if t < warm else curve(t - warm)

        return rate

    def warmup_target(self, lr: float) -> float:
        """The rate that warm-up leads to."""
        return lr

    def cycled_momentum(self, own: float, run: RunLength) -> Momentum | None:
        """T -> momentum, for a schedule that cycles it; `own` is the optimizer's."""
        return None

    def resolved(self, run: RunLength, lr: float) -> Self:
        """The same schedule with everything that follows from the run and the optimizer's rate written out."""
        if self.fills is None or getattr(self, self.fills) is not None:
            return self
        left = max(1, run.total_steps - self.warmup.steps(run))
        return self.model_copy(update={self.fills: Duration.of_steps(left)})

    def filled_steps(self, run: RunLength, rest: int) -> int:
        """Optimizer steps of the field that `fills` names."""
        given: Duration | None = getattr(self, self.fills) if self.fills else None
        return given.steps(run) if given else rest

    def open_lengths(self) -> Iterator[str]:
        """Pointers of the lengths that only the end of the run decides."""
        if self.fills and getattr(self, self.fills) is None:
            yield f"/{self.fills}"

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        """The fields that divide by their length, so that 0 steps would mean nothing."""
        if self.fills and (given := getattr(self, self.fills)):
            yield self.fills, given

    def cycle_ends(self, run: RunLength) -> Iterator[int]:
        """How many steps of the run are complete at the end of each of its cycles, rising."""
        return iter(())

    def unimodal_ranges(self, run: RunLength) -> Iterator[tuple[int, int]]:
        """Steps a <= t < b in which the rate has no valley, one stretch after the other; warm-up is in none of them."""
        start = self.warmup.steps(run)
        for end in self.cycle_ends(run):
            yield start, end
            start = end
        if start < run.total_steps:
            yield start, run.total_steps

    def monitored_series(self) -> str | None:
        """The evaluation series that it listens to."""
        return None

    def after_evaluation(self, heard: PlateauState, value: float) -> PlateauState:
        """What it knows after one more evaluation of that series."""
        return heard

    def reduced_rate(self, rate: float, reductions: int) -> float:
        """What is left of a rate after so many reductions."""
        return rate

    def most_reductions(self, evaluations: int) -> int:
        """How often it reduces the rate at most in so many evaluations."""
        return 0

    def between_reductions(self) -> int:
        """How many evaluations pass at the least from one reduction to the next."""
        return 0

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """What makes no sense in a given run; pointers are relative to the schedule."""
        for field, length in self.nonzero_durations():
            if length.steps(run) < 1:
                yield FieldProblem(f"/{field}", f"{length} is less than one optimizer step here", "make it longer")


def too_many_cycles(field: str, cycles: Iterator[int], run: RunLength) -> Iterator[FieldProblem]:
    """The problem of a run with more cycles than anybody would look at."""
    if run.bounded and next(islice(cycles, MOST_CYCLES, None), None) is not None:
        yield FieldProblem(f"/{field}", f"the run has more than {MOST_CYCLES:,} cycles", "make them longer")


def first_below(bound: float, rate: LearningRate, stretches: Iterator[tuple[int, int]]) -> int | None:
    """The first step of all stretches whose rate is below `bound`, without looking at every step."""
    for start, end in islice(stretches, MOST_CYCLES):
        if rate(start) < bound:
            return start
        if rate(end - 1) < bound:
            above, below = start, end - 1
            while below - above > 1:
                middle = (above + below) // 2
                above, below = (above, middle) if rate(middle) < bound else (middle, below)
            return below
    return None


def power_or_inf(base: float, exponent: float) -> float:
    """base^exponent; what is too large for a float is infinite, where Python would raise."""
    try:
        result: float = base**exponent
    except OverflowError:
        return math.inf
    return result


def milestone_problems(field: str, milestones: tuple[Duration, ...], run: RunLength) -> Iterator[FieldProblem]:
    """Problems of points in time, counted from 0, that must each lie behind the one before."""
    before, so_far = 0, "0st"
    for index, milestone in enumerate(milestones):
        step = milestone.steps(run)
        if step <= before:
            message = f"{milestone} is step {step:,} here, which does not lie behind {so_far}"
            yield FieldProblem(f"/{field}/{index}", message, "milestones rise, from at least one optimizer step")
        before, so_far = max(before, step), str(milestone)
