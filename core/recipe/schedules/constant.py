from typing import ClassVar, Literal

from core.recipe.duration import RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec


class Constant(ScheduleSpec):
    """lr(u) = lr."""

    summary: ClassVar[str] = "The optimizer's learning rate throughout."
    is_constant: ClassVar[bool] = True
    name: Literal["constant"] = "constant"

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        return lambda _: lr
