from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative
from core.recipe.optimizers.base import OptimizerSpec


class Adam(OptimizerSpec):
    """m, v: moving averages of g and g²; w <- w - lr m̂ / (√v̂ + eps), with m̂ = m/(1-β1ᵗ), v̂ = v/(1-β2ᵗ)."""

    summary: ClassVar[str] = "Adam: a step per weight, scaled by moving averages of the gradient and its square."
    paper: ClassVar[str | None] = "Kingma & Ba 2014, arXiv:1412.6980"
    implementation: ClassVar[str] = "torch.optim:Adam"
    name: Literal["adam"] = "adam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    amsgrad: bool = False
