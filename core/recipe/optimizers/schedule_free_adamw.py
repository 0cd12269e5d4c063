from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.optimizers.schedule_free import Mix, ScheduleFreeSpec


class ScheduleFreeAdamW(ScheduleFreeSpec):
    """v as in Adam, d = g(y) / (√v̂ + eps) + weight_decay y; z <- z - lr d, x <- x + c (z - x), y = (1 - β1) z + β1 x.

    Trained at y, evaluated at x. c is the step's share of all weights so far; a step weighs (t + 1)^r · (largest rate
    so far)^weight_lr_power.
    """

    summary: ClassVar[str] = "Schedule-Free AdamW: Adam's scaling, with a mean of iterates in place of momentum."
    paper: ClassVar[str | None] = "Defazio et al. 2024, arXiv:2405.15682"
    implementation: ClassVar[str] = "schedulefree:AdamWScheduleFree"
    name: Literal["schedule_free_adamw"] = "schedule_free_adamw"
    lr: Positive = 2.5e-3
    betas: tuple[Mix, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0

    @property
    def beta(self) -> float:
        return self.betas[0]
