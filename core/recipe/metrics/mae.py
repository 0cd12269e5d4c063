"""Mean absolute error."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.metrics.base import MetricSpec


class MeanAbsoluteError(MetricSpec):
    """The mean of abs(output - target) over examples and outputs; the standardisation of the targets is undone."""

    summary: ClassVar[str] = "The mean absolute error in the data's own units."
    implementation: ClassVar[str] = "core.engine.evaluation.metrics:build_mae"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    name: Literal["mae"] = "mae"
