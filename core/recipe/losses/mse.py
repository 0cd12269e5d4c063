"""Mean squared error."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.losses.base import LossSpec


class MeanSquaredError(LossSpec):
    """The mean of (output - target)² over examples and outputs."""

    summary: ClassVar[str] = "The mean squared error of the standardised targets."
    implementation: ClassVar[str] = "core.engine.evaluation.losses:build_mse"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    name: Literal["mse"] = "mse"
