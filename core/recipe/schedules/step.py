from collections.abc import Iterator
from typing import ClassVar, Literal

from core.recipe.component import Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec, power_or_inf


class Step(ScheduleSpec):
    """lr(u) = lr gamma^floor(u / step_size)."""

    summary: ClassVar[str] = "The rate times gamma every step_size."
    name: Literal["step"] = "step"
    step_size: Duration
    gamma: Positive = 0.1

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        size = self.step_size.steps(run)
        return lambda u: lr * power_or_inf(self.gamma, u // size)

    def nonzero_durations(self) -> Iterator[tuple[str, Duration]]:
        yield "step_size", self.step_size
