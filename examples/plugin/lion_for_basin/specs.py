"""What can be written into a job. No torch here: the api imports this module."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.component import Fraction, NonNegative, Positive
from core.recipe.facts import DataFacts
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
