from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class Adadelta(OptimizerSpec):
    """v <- rho v + (1 - rho) g²; d = √(u + eps) / √(v + eps) g; u <- rho u + (1 - rho) d²; w <- w - lr d."""

    summary: ClassVar[str] = "Adadelta: steps in the units of the weights, from moving averages of steps and gradients."
    paper: ClassVar[str | None] = "Zeiler 2012, arXiv:1212.5701"
    implementation: ClassVar[str] = "torch.optim:Adadelta"
    name: Literal["adadelta"] = "adadelta"
    lr: Positive = 1.0
    rho: Fraction = 0.9
    eps: NonNegative = 1e-6
    weight_decay: NonNegative = 0.0
