"""Mean absolute error."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.metrics.base import MetricSpec


class MeanAbsoluteError(MetricSpec):
    """|output - target|, the mean over examples and outputs, in the data's own units."""

    summary: ClassVar[str] = "The mean absolute error in the data's own units."
    implementation: ClassVar[str] = "core.engine.evaluation.metrics:build_mae"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    name: Literal["mae"] = "mae"
