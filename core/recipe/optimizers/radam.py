from typing import ClassVar, Literal

from core.recipe.component import Fraction, NonNegative
from core.recipe.optimizers.base import OptimizerSpec


class RAdam(OptimizerSpec):
    """Adam's step times r from the step on at which v has enough gradients (n > 5); before that w <- w - lr m̂.

    n = N - 2 t β2ᵗ / (1 - β2ᵗ) of at most N = 2 / (1 - β2) - 1, r² = (n-4)(n-2)N / ((N-4)(N-2)n). With
    decoupled_weight_decay the decay is AdamW's.
    """

    summary: ClassVar[str] = (
        "RAdam: Adam whose early steps are damped while the variance of its second moment is large."
    )
    paper: ClassVar[str | None] = "Liu et al. 2019, arXiv:1908.03265"
    implementation: ClassVar[str] = "torch.optim:RAdam"
    name: Literal["radam"] = "radam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: NonNegative = 1e-8
    weight_decay: NonNegative = 0.0
    decoupled_weight_decay: bool = False
