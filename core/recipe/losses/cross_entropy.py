"""Cross-entropy."""

from typing import ClassVar, Literal

from core.recipe.facts import Task
from core.recipe.losses.base import LossSpec


class CrossEntropy(LossSpec):
    """The mean of -log softmax(outputs)[class] over examples.

    The loss of evaluations is that of the true classes, whatever `label_smoothing` is.
    """

    summary: ClassVar[str] = "The negative log-likelihood of the true class, from softmax outputs."
    implementation: ClassVar[str] = "core.engine.evaluation.losses:build_cross_entropy"
    tasks: ClassVar[tuple[Task, ...]] = ("classification", "language_model")
    smooths_labels: ClassVar[bool] = True
    name: Literal["cross_entropy"] = "cross_entropy"
