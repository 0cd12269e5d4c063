from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.component import NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class ASGD(OptimizerSpec):
    """w <- (1 - lambd η) w - η g with η = lr / (1 + lambd lr t)^alpha; from step t0 on the mean of all w is kept.

    The mean is what is evaluated and saved in checkpoints; up to t0, 10⁶ steps unless given, it is w itself.
    """

    summary: ClassVar[str] = "Averaged SGD: a slowly falling step, and the mean of the weights after t0."
    paper: ClassVar[str | None] = "Polyak & Juditsky 1992, Acceleration of stochastic approximation by averaging"
    implementation: ClassVar[str] = "torch.optim:ASGD"
    stepper: ClassVar[str] = "core.engine.optimizers.averaged:build_averaged_stepper"
    averages: ClassVar[bool] = True
    name: Literal["asgd"] = "asgd"
    lr: Positive = 1e-2
    lambd: NonNegative = 1e-4
    alpha: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 0.75
    t0: NonNegative = 1e6
    weight_decay: NonNegative = 0.0
