"""Momentum that moves against the learning rate."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import Spec, cross_field_error

Momentum = Annotated[float, Field(gt=0, lt=1)]  # at 0 torch drops the buffer for a step


class CycleMomentum(Spec):
    """Momentum (Adam's first beta) between `base`, where the rate peaks, and `max`, where it is lowest.

    In torch this is the default; here it has to be requested.
    """

    base: Momentum
    max: Momentum

    @model_validator(mode="after")
    def base_is_below(self) -> Self:
        if self.base > self.max:
            raise cross_field_error(FieldProblem("/base", f"{self.base:g} is above max, {self.max:g}", "swap the two"))
        return self

    def momentum_at(self, share: float) -> float:
        """The momentum where the rate is at `share` between the lowest rate (0) and the peak (1)."""
        return self.max - (self.max - self.base) * share
