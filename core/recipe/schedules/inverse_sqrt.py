import math
from typing import ClassVar, Literal

from core.recipe.duration import RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec


class InverseSqrt(ScheduleSpec):
    """lr sqrt(W / (t + 1)) for t >= W, with at least 1 for the warm-up steps W; t is the step of the run.

    The rule of the Transformer, min((t + 1)^-1/2, (t + 1) W^-3/2), with its peak, reached by the last step of warm-up,
    scaled to lr.
    """

    summary: ClassVar[str] = "The rate falls with the root of the step number, from the end of warm-up on."
    paper: ClassVar[str | None] = "Vaswani et al. 2017, arXiv:1706.03762, section 5.3"
    name: Literal["inverse_sqrt"] = "inverse_sqrt"

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        warm = self.warmup.steps(run)
        scale = max(1, warm)
        return lambda u: lr * math.sqrt(scale / (u + warm + 1))
