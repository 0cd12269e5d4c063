"""One linear layer on the flattened input."""

from collections import OrderedDict

from torch import nn

from core.recipe.facts import DataFacts
from core.recipe.models.logistic import Logistic


def build(spec: Logistic, facts: DataFacts) -> nn.Sequential:
    """(batch, *input_shape) -> (batch, outputs)."""
    del spec
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), output=nn.Linear(facts.features, facts.outputs)))
