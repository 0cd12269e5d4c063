"""Accuracy."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.metrics.base import MetricSpec, Mode


class Accuracy(MetricSpec):
    """The share of examples whose largest output is that of their class."""

    summary: ClassVar[str] = "The share of examples that are classified correctly."
    implementation: ClassVar[str] = "core.engine.evaluation.metrics:build_accuracy"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    mode: ClassVar[Mode] = "max"
    name: Literal["accuracy"] = "accuracy"
