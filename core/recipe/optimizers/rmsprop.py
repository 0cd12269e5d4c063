from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class RMSprop(OptimizerSpec):
    """v <- alpha v + (1 - alpha) g²; w <- w - lr g / (√v + eps), eps outside the root as in torch."""

    summary: ClassVar[str] = "RMSProp: each weight's step divided by a moving root mean square of its gradient."
    paper: ClassVar[str | None] = "Tieleman & Hinton 2012, Lecture 6.5 of Neural Networks for Machine Learning"
    implementation: ClassVar[str] = "torch.optim:RMSprop"
    name: Literal["rmsprop"] = "rmsprop"
    lr: Positive = 1e-2
    alpha: Fraction = 0.99
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    momentum: Fraction = 0.0
    centered: bool = False
