from typing import ClassVar, Literal

from core.recipe.component import NonNegative, Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec


class Polynomial(ScheduleSpec):
    """lr(u) = eta_min + (lr - eta_min) (1 - min(u, total_iters) / total_iters)^power."""

    summary: ClassVar[str] = "The rate falls to eta_min by a power of the remaining share of the run."
    paper: ClassVar[str | None] = "Chen et al. 2016, arXiv:1606.00915 (the poly rule, power 0.9)"
    fills: ClassVar[str | None] = "total_iters"
    name: Literal["polynomial"] = "polynomial"
    power: Positive = 1.0
    total_iters: Duration | None = None
    eta_min: NonNegative = 0.0

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        length = self.filled_steps(run, rest)
        return lambda u: self.eta_min + (lr - self.eta_min) * (1 - min(u, length) / length) ** self.power
