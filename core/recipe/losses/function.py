"""The value of a function."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.losses.base import LossSpec


class FunctionValue(LossSpec):
    """The mean of f(x) + a_i · x over examples: the outputs of the model `point` are x, the targets a_i."""

    summary: ClassVar[str] = "The value of the function at the point."
    implementation: ClassVar[str] = "core.engine.evaluation.losses:build_function_value"
    tasks: ClassVar[tuple[Task, ...]] = ("function",)
    name: Literal["function"] = "function"
