"""The network of `rms_mlp`."""

from collections import OrderedDict
from collections.abc import Iterator
from itertools import pairwise

from torch import nn

from core.recipe.facts import DataFacts
from lion_for_basin.specs import RmsMlp


def build(spec: RmsMlp, facts: DataFacts) -> nn.Sequential:
    """(batch, *input_shape) -> (batch, outputs)."""
    return nn.Sequential(OrderedDict(_layers(spec, facts)))


def _layers(spec: RmsMlp, facts: DataFacts) -> Iterator[tuple[str, nn.Module]]:
    yield "flatten", nn.Flatten()
    for number, (before, after) in enumerate(pairwise((facts.features, *spec.hidden))):
        yield f"dense{number}", nn.Linear(before, after, bias=False)
        yield f"norm{number}", nn.RMSNorm(after)
        yield f"activation{number}", nn.SiLU()
    yield "output", nn.Linear(spec.hidden[-1], facts.outputs)
