from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from core.errors import FieldProblem
from core.recipe.component import refuse_boolean
from core.recipe.facts import DataFacts
from core.recipe.models.base import Activation, Dropout, ModelSpec, Width


class CNN(ModelSpec):
    """For each entry of `channels`: convolution (same size), batch norm (optional), activation, 2 by 2 max pooling.

    Then flatten, for each entry of `hidden` linear, activation, dropout, and a linear layer to the outputs. Pooling
    stops before a side falls below one pixel.
    """

    summary: ClassVar[str] = "A small convolutional network."
    paper: ClassVar[str | None] = "LeCun et al. 1998, Gradient-based learning applied to document recognition"
    implementation: ClassVar[str] = "core.engine.networks.cnn:build"
    name: Literal["cnn"] = "cnn"
    channels: Annotated[tuple[Width, ...], Field(min_length=1, max_length=16)] = (16, 32)
    kernel_size: Annotated[Literal[1, 3, 5, 7], BeforeValidator(refuse_boolean)] = 3
    hidden: Annotated[tuple[Width, ...], Field(max_length=16)] = (64,)
    activation: Activation = "relu"
    dropout: Dropout = 0.0
    batch_norm: bool = True

    def pooled_sizes(self, facts: DataFacts) -> list[tuple[int, int]]:
        """(height, width) after each stage; a stage has pooling while both sides are at least 2."""
        height, width = facts.input_shape[-2:]
        sizes = []
        for _ in self.channels:
            if min(height, width) >= 2:
                height, width = height // 2, width // 2
            sizes.append((height, width))
        return sizes

    def parameter_count(self, facts: DataFacts) -> int:
        planes = (facts.input_shape[0], *self.channels)
        convolutions = sum((before * self.kernel_size**2 + 1) * after for before, after in pairwise(planes))
        height, width = self.pooled_sizes(facts)[-1]
        widths = (self.channels[-1] * height * width, *self.hidden, facts.outputs)
        linear = sum((before + 1) * after for before, after in pairwise(widths))
        return convolutions + linear + (2 * sum(self.channels) if self.batch_norm else 0)

    def multiply_adds(self, facts: DataFacts) -> int:
        planes = pairwise((facts.input_shape[0], *self.channels))
        sizes = [facts.input_shape[-2:], *self.pooled_sizes(facts)]
        kernels = [before * self.kernel_size**2 * after for before, after in planes]
        pixels = [height * width for height, width in sizes]
        convolutions = sum(kernel * places for kernel, places in zip(kernels, pixels, strict=False))
        return convolutions + self.parameter_count(facts) - sum(kernels)

    @property
    def normalises_batches(self) -> bool:
        return self.batch_norm

    @property
    def hidden_matrices(self) -> int:
        return len(self.hidden)

    def problems(self, facts: DataFacts) -> Iterator[FieldProblem]:
        if len(facts.input_shape) != 3:
            yield FieldProblem("/name", "cnn needs images (channels, height, width)", 'use "mlp" for tables of numbers')
