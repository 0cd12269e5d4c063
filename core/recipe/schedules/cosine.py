import math
from typing import ClassVar, Literal

from core.recipe.component import NonNegative
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec


class Cosine(ScheduleSpec):
    """lr(u) = eta_min + (lr - eta_min) (1 + cos(pi u / T_max)) / 2 for u <= T_max, eta_min afterwards.

    `T_max` is by default the rest of the run after warm-up. torch's recursive form rises again after T_max; this one
    stays at eta_min.
    """

    summary: ClassVar[str] = "Half a cosine from the rate down to eta_min, without restarts."
    paper: ClassVar[str | None] = "Loshchilov & Hutter 2016, arXiv:1608.03983, eq. 5 with a single cycle"
    fills: ClassVar[str | None] = "T_max"
    name: Literal["cosine"] = "cosine"
    T_max: Duration | None = None
    eta_min: NonNegative = 0.0

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        length = self.filled_steps(run, rest)
        half = (lr - self.eta_min) / 2
        return lambda u: self.eta_min + half * (1 + math.cos(math.pi * min(u, length) / length))
