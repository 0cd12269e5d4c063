from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.facts import DataFacts
from core.recipe.models.base import Activation, Dropout, ModelSpec, Width
from core.recipe.models.embedding import embedded_features, embedding_parameters


class MLP(ModelSpec):
    """Flattened input, then for each hidden width: linear, batch norm (optional), activation, dropout; then linear.

    Each code of an embedded category is replaced by a learned vector of min(50, ceil(1.6 k^0.56)) numbers for k codes.
    """

    summary: ClassVar[str] = "A multi-layer perceptron."
    paper: ClassVar[str | None] = (
        "Rumelhart, Hinton & Williams 1986, Learning representations by back-propagating errors"
    )
    implementation: ClassVar[str] = "core.engine.networks.mlp:build"
    embeds: ClassVar[bool] = True
    name: Literal["mlp"] = "mlp"
    hidden: Annotated[tuple[Width, ...], Field(min_length=1, max_length=64)] = (128, 128)
    activation: Activation = "relu"
    dropout: Dropout = 0.0
    batch_norm: bool = False

    def parameter_count(self, facts: DataFacts) -> int:
        tables = embedding_parameters(facts.cardinalities) if facts.cardinalities else 0
        return self.multiply_adds(facts) + tables

    def multiply_adds(self, facts: DataFacts) -> int:
        """That of the layers: to look a vector up takes none."""
        widths = (embedded_features(facts.features, facts.cardinalities), *self.hidden, facts.outputs)
        linear = sum((before + 1) * after for before, after in pairwise(widths))
        return linear + (2 * sum(self.hidden) if self.batch_norm else 0)

    @property
    def normalises_batches(self) -> bool:
        return self.batch_norm

    @property
    def hidden_matrices(self) -> int:
        return len(self.hidden) - 1
