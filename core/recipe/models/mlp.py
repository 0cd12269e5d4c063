from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.facts import DataFacts
from core.recipe.models.base import Activation, Dropout, ModelSpec, Width


class MLP(ModelSpec):
    """Flattened input, then for each hidden width: linear, batch norm (optional), activation, dropout; then linear."""

    summary: ClassVar[str] = "A multi-layer perceptron."
    paper: ClassVar[str | None] = (
        "Rumelhart, Hinton & Williams 1986, Learning representations by back-propagating errors"
    )
    implementation: ClassVar[str] = "core.engine.networks.mlp:build"
    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)] = (128, 128)
    activation: Activation = "relu"
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def parameter_count(self, facts: DataFacts) -> int:
        widths = (facts.features, *self.hidden, facts.outputs)
        linear = sum((before + 1) * after for before, after in pairwise(widths))
        return linear + (2 * sum(self.hidden) if self.batch_norm else 0)

    @property
    def normalises_batches(self) -> bool:
        return self.batch_norm

    @property
    def hidden_matrices(self) -> int:
        return len(self.hidden) - 1
