from typing import ClassVar, Literal

from core.recipe.component import NonNegative
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec


class Linear(ScheduleSpec):
    """lr(u) = lr (start_factor + (end_factor - start_factor) min(u, total_iters) / total_iters)."""

    summary: ClassVar[str] = "A straight line from start_factor to end_factor times the rate."
    fills: ClassVar[str | None] = "total_iters"
    name: Literal["linear"] = "linear"
    start_factor: NonNegative = 1.0
    end_factor: NonNegative = 0.0
    total_iters: Duration | None = None

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        length = self.filled_steps(run, rest)
        slope = self.end_factor - self.start_factor
        return lambda u: lr * (self.start_factor + slope * min(u, length) / length)
