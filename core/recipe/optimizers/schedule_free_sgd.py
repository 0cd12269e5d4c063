from typing import ClassVar, Literal

from core.recipe.component import NonNegative, Positive
from core.recipe.optimizers.schedule_free import Mix, ScheduleFreeSpec


class ScheduleFreeSGD(ScheduleFreeSpec):
    """z <- z - lr g(y), x <- x + c (z - x), y = (1 - momentum) z + momentum x: trained at y, evaluated at x.

    c is the step's share of all weights so far; a step weighs (t + 1)^r · (largest rate so far)^weight_lr_power.
    """

    summary: ClassVar[str] = "Schedule-Free SGD: a weighted mean of iterates in place of a falling learning rate."
    paper: ClassVar[str | None] = "Defazio et al. 2024, arXiv:2405.15682"
    implementation: ClassVar[str] = "schedulefree:SGDScheduleFree"
    name: Literal["schedule_free_sgd"] = "schedule_free_sgd"
    lr: Positive = 1.0
    momentum: Mix = 0.9
    weight_decay: NonNegative = 0.0

    @property
    def beta(self) -> float:
        return self.momentum
