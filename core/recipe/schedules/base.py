"""A schedule is arithmetic: a pure function from the optimizer step t = 0, 1, … to the learning rate of that step.

It has no state, so a preview shows what a training does, and a resumed training cannot get it wrong.
"""

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, Self

from core.errors import FieldProblem
from core.recipe.component import Component
from core.recipe.duration import Duration, RunLength

LearningRate = Callable[[int], float]


class ScheduleSpec(Component):
    """Linear warm-up over `warmup`, lr (t + 1) / W for t < W; then the schedule's own clock starts at 0."""

    steady: ClassVar[bool] = False
    """Whether the rate is the same at every step once warm-up is over."""
    warmup: Duration = Duration.of_steps(0)

    @abstractmethod
    def curve(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        """The rate u = 0, 1, … steps after warm-up; `lr` is the optimizer's, `rest` the steps that are then left."""

    def compile(self, lr: float, run: RunLength) -> LearningRate:
        """T -> learning rate, all durations converted once."""
        warm = self.warmup.steps(run)
        curve = self.curve(lr, run, max(1, run.total_steps - warm))

        def rate(t: int) -> float:
            return lr * (t + 1) / warm if t < warm else curve(t - warm)

        return rate

    def resolved(self, run: RunLength) -> Self:
        """The same schedule with every length that follows from the run written out in optimizer steps."""
        return self

    def after_warmup(self, run: RunLength) -> Duration:
        """What is left of the run once warm-up is over."""
        return Duration.of_steps(max(1, run.total_steps - self.warmup.steps(run)))

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        """The fields that divide by their length, so that 0 steps would mean nothing."""
        return iter(())

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """What makes no sense in a given run; pointers are relative to the schedule."""
        for field, length in self.lengths():
            if length.steps(run) < 1:
                yield FieldProblem(f"/{field}", f"{length} is less than one optimizer step here", "make it longer")


def power(base: float, exponent: float) -> float:
    """base^exponent; what is too large for a float is infinite, where Python would raise."""
    try:
        result: float = base**exponent
    except OverflowError:
        return math.inf
    return result


def rising(field: str, milestones: tuple[Duration, ...], run: RunLength) -> Iterator[FieldProblem]:
    """Problems of points in time, counted from 0, that must each lie behind the one before."""
    before, so_far = 0, "0st"
    for index, milestone in enumerate(milestones):
        step = milestone.steps(run)
        if step <= before:
            message = f"{milestone} is step {step:,} here, which does not lie behind {so_far}"
            yield FieldProblem(f"/{field}/{index}", message, "milestones rise, from at least one optimizer step")
        before, so_far = max(before, step), str(milestone)
