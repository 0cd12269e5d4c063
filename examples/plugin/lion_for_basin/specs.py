"""What can be written into a job. No torch here: the api imports this module."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.facts import DataFacts, Task
from core.recipe.losses.base import LossSpec
from core.recipe.metrics.base import MetricSpec, Mode
from core.recipe.models.base import ModelSpec, Width
from core.recipe.optimizers.base import OptimizerSpec


class Lion(OptimizerSpec):
    """w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w), then m <- beta2 m + (1 - beta2) g.

    Each weight moves by the rate itself, so rates are 3 to 10 times smaller than AdamW's.
    """

    summary: ClassVar[str] = "The sign of a momentum that is interpolated with the gradient."
    paper: ClassVar[str | None] = "Chen et al. 2023, Symbolic Discovery of Optimization Algorithms, arXiv:2302.06675"
    implementation: ClassVar[str] = "lion_for_basin.optimizer:Lion"
    name: Literal["lion"] = "lion"
    lr: Positive = 1e-4
    betas: tuple[Fraction, Fraction] = (0.9, 0.99)
    weight_decay: NonNegative = 0.0


class RmsMlp(ModelSpec):
    """Flattened input, then for each hidden width: linear without bias, RMSNorm, SiLU; then linear."""

    summary: ClassVar[str] = "A perceptron that divides each layer's outputs by their root mean square."
    paper: ClassVar[str | None] = "Zhang & Sennrich 2019, Root Mean Square Layer Normalization, arXiv:1910.07467"
    implementation: ClassVar[str] = "lion_for_basin.network:build"
    name: Literal["rms_mlp"] = "rms_mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (64, 64)

    def parameter_count(self, facts: DataFacts) -> int:
        """Each hidden layer: its matrix, and one scale for each output."""
        layers = sum(before * after + after for before, after in pairwise((facts.features, *self.hidden)))
        return layers + (self.hidden[-1] + 1) * facts.outputs

    @property
    def hidden_matrices(self) -> int:
        return len(self.hidden) - 1


class Poly1(LossSpec):
    """-log p + epsilon (1 - p), the mean over examples; p is the softmax probability of the true class.

    With epsilon = 0 it is the cross-entropy.
    """

    summary: ClassVar[str] = "Cross-entropy whose first polynomial coefficient is changed."
    paper: ClassVar[str | None] = "Leng et al. 2022, PolyLoss, arXiv:2204.12511"
    implementation: ClassVar[str] = "lion_for_basin.measures:build_poly1"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    name: Literal["poly1"] = "poly1"
    epsilon: Annotated[float, Field(ge=-1, le=100)] = 2.0


class ConfidentAccuracy(MetricSpec):
    """The share of examples whose true class has a softmax probability of at least `above`."""

    summary: ClassVar[str] = "The share of examples that are classified correctly and with confidence."
    implementation: ClassVar[str] = "lion_for_basin.measures:build_confident_accuracy"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    mode: ClassVar[Mode] = "max"
    name: Literal["confident_accuracy"] = "confident_accuracy"
    above: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
