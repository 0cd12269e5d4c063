from typing import ClassVar, Literal, Self

from pydantic import model_validator

from core.errors import FieldProblem
from core.recipe.component import Fraction, NonNegative, cross_field_error
from core.recipe.optimizers.base import OptimizerSpec


class SGD(OptimizerSpec):
    """b <- momentum b + (1 - dampening) g; w <- w - lr b (or, Nesterov, w - lr (g + momentum b)).

    The rate is not part of the buffer, as in torch: a change of the rate does not rescale past velocity.
    """

    summary: ClassVar[str] = "Stochastic gradient descent, with (Nesterov) momentum."
    paper: ClassVar[str | None] = "Sutskever et al. 2013, On the importance of initialization and momentum"
    implementation: ClassVar[str] = "torch.optim:SGD"
    name: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.0
    dampening: NonNegative = 0.0
    weight_decay: NonNegative = 0.0
    nesterov: bool = False

    @property
    def stability_limit(self) -> float | None:
        """2 (1 + momentum) / lr, of the heavy ball."""
        return None if self.nesterov or self.dampening else 2 * (1 + self.momentum) / self.lr

    @model_validator(mode="after")
    def nesterov_needs_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise cross_field_error(
                FieldProblem("/nesterov", "nesterov needs momentum above 0 and dampening 0", "momentum 0.9 is usual")
            )
        return self
