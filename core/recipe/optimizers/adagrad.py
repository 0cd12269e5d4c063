from typing import ClassVar, Literal

from core.recipe.component import NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec


class Adagrad(OptimizerSpec):
    """s <- s + g²; w <- w - lr / (1 + t lr_decay) g / (√s + eps), where t counts from 0.

    s starts at initial_accumulator_value.
    """

    summary: ClassVar[str] = "Adagrad: each weight's step divided by the root of all its squared gradients so far."
    paper: ClassVar[str | None] = "Duchi, Hazan & Singer 2011, Adaptive subgradient methods, JMLR 12"
    implementation: ClassVar[str] = "torch.optim:Adagrad"
    name: Literal["adagrad"] = "adagrad"
    lr: Positive = 1e-2
    lr_decay: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    initial_accumulator_value: NonNegative = 0.0
    eps: NonNegative = 1e-10
