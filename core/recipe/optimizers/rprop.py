from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import LARGEST, Fraction, Positive, cross_field_error
from core.recipe.optimizers.base import OptimizerSpec

Growth = Annotated[float, Field(gt=1, le=LARGEST, allow_inf_nan=False)]


class Rprop(OptimizerSpec):
    """Each weight has its own step size: times etas[1] while the sign of its gradient stays, else times etas[0].

    w <- w - size · sign(g); a weight whose gradient changed its sign does not move in that step. Sizes begin at lr and
    stay within step_sizes: lr has no effect after the first step.
    """

    summary: ClassVar[str] = "Resilient backpropagation: step sizes from the signs of full-batch gradients alone."
    paper: ClassVar[str | None] = "Riedmiller & Braun 1993, A direct adaptive method for faster backpropagation"
    implementation: ClassVar[str] = "torch.optim:Rprop"
    full_batch: ClassVar[bool] = True
    constant_lr_reason: ClassVar[str | None] = (
        "lr is only the size of the first step; after it each weight has its own step size"
    )
    name: Literal["rprop"] = "rprop"
    lr: Positive = 1e-2
    etas: tuple[Annotated[Fraction, Field(gt=0)], Growth] = (0.5, 1.2)
    step_sizes: tuple[Positive, Positive] = (1e-6, 50.0)

    @model_validator(mode="after")
    def sizes_are_ordered(self) -> Self:
        if self.step_sizes[0] > self.step_sizes[1]:
            raise cross_field_error(
                FieldProblem("/step_sizes", "the smallest step size is above the largest", "swap the two")
            )
        return self
