from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, Literal

from core.recipe.component import Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec, power_or_inf


class Exponential(ScheduleSpec):
    """lr(u) = lr gamma^(u / every): a smooth decay by gamma each `every`; `staircase` floors the exponent."""

    summary: ClassVar[str] = "The rate times gamma per epoch, smoothly or in stairs."
    name: Literal["exponential"] = "exponential"
    gamma: Positive
    every: Duration = Duration(Fraction(1), "ep")
    staircase: bool = False

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        every = self.every.steps(run)
        if self.staircase:
            return lambda u: lr * power_or_inf(self.gamma, u // every)
        return lambda u: lr * power_or_inf(self.gamma, u / every)

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        yield "every", self.every
