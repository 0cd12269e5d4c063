from collections.abc import Iterator
from typing import ClassVar, Literal

from core.recipe.component import Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec, power


class Step(ScheduleSpec):
    """lr(u) = lr gamma^floor(u / step_size)."""

    summary: ClassVar[str] = "The rate times gamma every step_size."
    name: Literal["step"] = "step"
    step_size: Duration
    gamma: Positive = 0.1

    def curve(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        size = self.step_size.steps(run)
        return lambda u: lr * power(self.gamma, u // size)

    def lengths(self) -> Iterator[tuple[str, Duration]]:
        yield "step_size", self.step_size
