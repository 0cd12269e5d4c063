"""A schedule is arithmetic: a pure function from the optimizer step t = 0, 1, … to the learning rate of that step.

It has no state, so a preview shows the rates of the training, and a resumed training has the same rates. The schedule
that depends on evaluations (plateau) keeps a small state of them, and is a pure function of step and state.
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
MOST_CYCLES = 10_000  # in one run: the weights at each end of a cycle are evaluated and kept


@dataclass(frozen=True, slots=True)
class PlateauState:
    """A schedule's state from the evaluations so far: the best value, the number in a row without improvement, the
    number left of the cooldown, and the number of reductions of the rate.
    """

    best: float | None = None
    wait: int = 0
    cooldown: int = 0
    reductions: int = 0


class ScheduleSpec(Component):
    """Linear warm-up over `warmup`, lr (t + 1) / W for t < W; then the schedule's own step count u starts at 0."""

    is_constant: ClassVar[bool] = False
    """Whether the rate is the same at every step after warm-up."""
    fills: ClassVar[str | None] = None
    """The field whose default is the rest of the run after warm-up."""
    warmup: Duration = Duration.of_steps(0)

    @abstractmethod
    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        """The rate u = 0, 1, … steps after warm-up; `lr` is the optimizer's, `rest` the steps that follow warm-up."""

    def compile_rate(self, lr: float, run: RunLength) -> LearningRate:
        """T -> learning rate of step t before any reduction; all durations are converted once."""
        warm, top = self.warmup.steps(run), self.warmup_target(lr)
        curve = self.rate_after_warmup(lr, run, max(1, run.total_steps - warm))

        def rate(t: int) -> float:
            return top * (t + 1) / warm if t < warm else curve(t - warm)

        return rate

    def warmup_target(self, lr: float) -> float:
        """The rate at the end of warm-up."""
        return lr

    def cycled_momentum(self, own: float, run: RunLength) -> Momentum | None:
        """T -> momentum of step t, if the schedule cycles it; `own` is the optimizer's momentum."""
        return None

    def resolved(self, run: RunLength, lr: float) -> Self:
        """The same schedule with every default that depends on the run or the optimizer's rate filled in."""
        if self.fills is None or getattr(self, self.fills) is not None:
            return self
        left = max(1, run.total_steps - self.warmup.steps(run))
        return self.model_copy(update={self.fills: Duration.of_steps(left)})

    def filled_steps(self, run: RunLength, rest: int) -> int:
        """Optimizer steps of the field that `fills` names."""
        given: Duration | None = getattr(self, self.fills) if self.fills else None
        return given.steps(run) if given else rest

    def open_lengths(self) -> Iterator[str]:
        """Pointers of the lengths that depend on the end of the run."""
        if self.fills and getattr(self, self.fills) is None:
            yield f"/{self.fills}"

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        """The fields whose length is a divisor, so that it must not be 0 steps."""
        if self.fills and (given := getattr(self, self.fills)):
            yield self.fills, given

    def cycle_ends(self, run: RunLength) -> Iterator[int]:
        """The number of complete steps of the run at the end of each of its cycles, in ascending order."""
        return iter(())

    def unimodal_ranges(self, run: RunLength) -> Iterator[tuple[int, int]]:
        """Ranges a <= t < b of steps without a local minimum of the rate inside, in order; warm-up is excluded."""
        start = self.warmup.steps(run)
        for end in self.cycle_ends(run):
            yield start, end
            start = end
        if start < run.total_steps:
            yield start, run.total_steps

    def monitored_series(self) -> str | None:
        """The evaluation series that it depends on, if any."""
        return None

    def after_evaluation(self, state: PlateauState, value: float) -> PlateauState:
        """The state after one more evaluation of that series."""
        return state

    def reduced_rate(self, rate: float, reductions: int) -> float:
        """A rate after this number of reductions."""
        return rate

    def most_reductions(self, evaluations: int) -> int:
        """The most reductions of the rate that this number of evaluations can cause."""
        return 0

    def between_reductions(self) -> int:
        """The least number of evaluations between two reductions."""
        return 0

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """Every reason to refuse the schedule for a given run; pointers are relative to the schedule."""
        for field, length in self.nonzero_durations():
            if length.steps(run) < 1:
                yield FieldProblem(f"/{field}", f"{length} is less than one optimizer step here", "make it longer")


def too_many_cycles(field: str, cycles: Iterator[int], run: RunLength) -> Iterator[FieldProblem]:
    """The problem of a run with more than MOST_CYCLES cycles."""
    if run.bounded and next(islice(cycles, MOST_CYCLES, None), None) is not None:
        yield FieldProblem(f"/{field}", f"the run has more than {MOST_CYCLES:,} cycles", "make them longer")


def first_below(bound: float, rate: LearningRate, stretches: Iterator[tuple[int, int]]) -> int | None:
    """The first step of all ranges whose rate is below `bound`, by bisection in each unimodal range."""
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
    """base^exponent, or infinity on overflow, where Python raises."""
    try:
        result: float = base**exponent
    except OverflowError:
        return math.inf
    return result


def milestone_problems(field: str, milestones: tuple[Duration, ...], run: RunLength) -> Iterator[FieldProblem]:
    """The problems of milestones that are not in strictly ascending order, counted from 0."""
    before, so_far = 0, "0st"
    for index, milestone in enumerate(milestones):
        step = milestone.steps(run)
        if step <= before:
            message = f"{milestone} is step {step:,} here, which is not after {so_far}"
            yield FieldProblem(
                f"/{field}/{index}", message, "give them in ascending order, from at least one optimizer step"
            )
        before, so_far = max(before, step), str(milestone)
