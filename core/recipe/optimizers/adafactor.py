from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.component import LARGEST, NonNegative, Positive
from core.recipe.optimizers.base import OptimizerSpec

Epsilon = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]  # torch squares it


class Adafactor(OptimizerSpec):
    """The mean square gradient of an n by m matrix is kept as n row means and m column means, not as n m numbers.

    v <- v + t^beta2_decay (g² - v) for both, V = rows · columns / mean(rows); u = g / √V, clipped to a root mean square
    of d; w <- (1 - lr weight_decay) w - max(eps[1], rms(w)) min(lr, 1/√t) u. So lr bounds the step relative to the root
    mean square of each tensor. eps[0] (null: the machine epsilon of the weights' type) keeps V from 0.
    """

    summary: ClassVar[str] = "Adafactor: Adam's second moment in the memory of rows and columns, relative step sizes."
    paper: ClassVar[str | None] = "Shazeer & Stern 2018, arXiv:1804.04235"
    implementation: ClassVar[str] = "torch.optim:Adafactor"
    stepper: ClassVar[str] = "core.engine.optimizers.per_parameter:build"
    name: Literal["adafactor"] = "adafactor"
    lr: Positive = 1e-2
    beta2_decay: Annotated[float, Field(ge=-LARGEST, le=0, allow_inf_nan=False)] = -0.8
    eps: tuple[Epsilon | None, NonNegative] = (None, 1e-3)
    d: Annotated[float, Field(ge=1, le=LARGEST, allow_inf_nan=False)] = 1.0
    weight_decay: NonNegative = 0.0
