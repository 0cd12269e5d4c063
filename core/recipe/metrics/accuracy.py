"""Accuracy."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.metrics.base import MetricSpec, Mode


class Accuracy(MetricSpec):
    """An example counts where its largest output is that of its class."""

    summary: ClassVar[str] = "The share of examples that are classified correctly."
    implementation: ClassVar[str] = "core.engine.evaluation.metrics:build_accuracy"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    mode: ClassVar[Mode] = "max"
    name: Literal["accuracy"] = "accuracy"
