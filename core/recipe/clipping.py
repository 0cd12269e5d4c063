"""Gradient clipping."""

from typing import Self

from pydantic import model_validator

from core.errors import FieldProblem
from core.recipe.component import Positive, Spec, cross_field_error


class ClipGrad(Spec):
    """Once per optimizer step, on the accumulated gradient g of all weights together.

    `norm`: g min(1, norm / (|g| + 1e-6)), as torch does it; |g| before that is the series grad_norm. `value`: every
    entry of g into [-value, value].
    """

    norm: Positive | None = None
    value: Positive | None = None

    @model_validator(mode="after")
    def one_way(self) -> Self:
        if (self.norm is None) == (self.value is None):
            raise cross_field_error(
                FieldProblem("", 'gradients are clipped either by "norm" or by "value"', 'give {"norm": 1.0}')
            )
        return self
