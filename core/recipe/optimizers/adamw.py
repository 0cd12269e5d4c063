from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative
from core.recipe.optimizers.base import OptimizerSpec


class AdamW(OptimizerSpec):
    """w <- (1 - lr weight_decay) w, then Adam's step: the decay is not rescaled by 1/√v."""

    summary: ClassVar[str] = "Adam with decoupled weight decay."
    paper: ClassVar[str | None] = "Loshchilov & Hutter 2017, arXiv:1711.05101"
    implementation: ClassVar[str] = "torch.optim:AdamW"
    name: Literal["adamw"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 1e-2
    amsgrad: bool = False
