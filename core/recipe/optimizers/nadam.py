from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class NAdam(OptimizerSpec):
    """w <- w - lr ((1 - μₜ) g / (1 - Πμ) + μₜ₊₁ m / (1 - μₜ₊₁ Πμ)) / (√v̂ + eps), m, v and v̂ as in Adam.

    μₜ = β1 (1 - 0.96^(t momentum_decay) / 2) warms the momentum up; Πμ is the product of all μ so far. With
    decoupled_weight_decay the decay is AdamW's.
    """

    summary: ClassVar[str] = "NAdam: Adam that looks ahead along its momentum, as Nesterov does."
    paper: ClassVar[str | None] = "Dozat 2016, Incorporating Nesterov momentum into Adam"
    implementation: ClassVar[str] = "torch.optim:NAdam"
    name: Literal["nadam"] = "nadam"
    lr: Positive = 2e-3
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    momentum_decay: NonNegative = 4e-3
    decoupled_weight_decay: bool = False
