from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class Adamax(OptimizerSpec):
    """m as in Adam, u <- max(β2 u, |g| + eps); w <- w - lr / (1 - β1ᵗ) m / u."""

    summary: ClassVar[str] = "Adamax: Adam with the infinity norm of past gradients in place of their mean square."
    paper: ClassVar[str | None] = "Kingma & Ba 2014, arXiv:1412.6980, section 7.1"
    implementation: ClassVar[str] = "torch.optim:Adamax"
    name: Literal["adamax"] = "adamax"
    lr: Positive = 2e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
