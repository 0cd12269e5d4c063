"""The coefficient of determination."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.metrics.base import MetricSpec, Mode


class R2(MetricSpec):
    """1 - sum of squared errors / sum of squared deviations from the mean; of constant targets 1 when exact, else 0."""

    summary: ClassVar[str] = "The share of the targets' variance that the outputs explain."
    implementation: ClassVar[str] = "core.engine.evaluation.metrics:build_r2"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    mode: ClassVar[Mode] = "max"
    name: Literal["r2"] = "r2"
