"""Linear layers with activations between them."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from core.engine.networks.embedding import EmbedCodes
from core.engine.networks.layers import Layers, dense
from core.recipe.facts import DataFacts
from core.recipe.models.embedding import embedded_features
from core.recipe.models.mlp import MLP


def build(spec: MLP, facts: DataFacts) -> nn.Sequential:
    """(batch, *input_shape) -> (batch, outputs)."""
    return nn.Sequential(OrderedDict(_layers(spec, facts)))


def _layers(spec: MLP, facts: DataFacts) -> Layers:
    yield "flatten", nn.Flatten()
    if facts.cardinalities:
        yield "embed", EmbedCodes(facts.cardinalities)
    first = embedded_features(facts.features, facts.cardinalities)
    for number, widths in enumerate(pairwise((first, *spec.hidden))):
        yield from dense(number, widths, spec.activation, spec.dropout, batch_norm=spec.batch_norm)
    yield "output", nn.Linear(spec.hidden[-1], facts.outputs)
