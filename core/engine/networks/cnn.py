"""A convolutional network: convolutions with pooling by 2, then linear layers."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from core.engine.networks.layers import ACTIVATIONS, Layers, dense
from core.recipe.facts import DataFacts
from core.recipe.models.cnn import CNN


def build(spec: CNN, facts: DataFacts) -> nn.Sequential:
    """(batch, channels, height, width) -> (batch, outputs)."""
    return nn.Sequential(OrderedDict(_layers(spec, facts)))


def _layers(spec: CNN, facts: DataFacts) -> Layers:
    height, width = facts.input_shape[-2:]
    planes = pairwise((facts.input_shape[0], *spec.channels))
    for number, ((before, after), pooled) in enumerate(zip(planes, spec.pooled_sizes(facts), strict=True)):
        yield f"conv{number}", nn.Conv2d(before, after, spec.kernel_size, padding=spec.kernel_size // 2)
        if spec.batch_norm:
            yield f"norm{number}", nn.BatchNorm2d(after)
        yield f"activation{number}", ACTIVATIONS[spec.activation]()
        if pooled != (height, width):
            yield f"pool{number}", nn.MaxPool2d(2)
        height, width = pooled
    yield "flatten", nn.Flatten()
    flat = spec.channels[-1] * height * width
    for number, widths in enumerate(pairwise((flat, *spec.hidden))):
        yield from dense(number, widths, spec.activation, spec.dropout, batch_norm=False)
    yield "output", nn.Linear((flat, *spec.hidden)[-1], facts.outputs)
