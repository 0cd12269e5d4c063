"""Synthetic data: a seed and a few parameters determine it, at any size and difficulty."""

from abc import abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import cross_field_error
from core.recipe.data.base import SyntheticData

if TYPE_CHECKING:
    from core.recipe.data.base import Array

Noise = Annotated[float, Field(ge=0, le=1e6)]

MOST_NUMBERS = 2**24  # in all inputs together: 64 MB as float32
GRID = 2.0**-20  # inputs are rounded to multiples of it, so that the last bit of a platform's cosine has no effect


class GeneratedSpec(SyntheticData):
    """Classification data from a generator with the seed `seed`; the sizes of classes differ by at most one."""

    examples: Annotated[int, Field(ge=2, le=1_000_000)] = 1000
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @abstractmethod
    def draw_inputs(self, labels: "Array", draws: "StableRandom") -> "Array":
        """Inputs float64 (N, *input_shape) of examples whose classes are `labels`, int64 (N,)."""

    @model_validator(mode="after")
    def fits_in_memory(self) -> Self:
        facts = self.facts()
        if facts.examples * facts.features > MOST_NUMBERS:
            message = f"{facts.examples * facts.features:,} numbers; at most {MOST_NUMBERS:,} are allowed"
            raise cross_field_error(FieldProblem("/examples", message, "make it smaller"))
        if facts.examples < facts.outputs:
            raise cross_field_error(
                FieldProblem("/examples", f"{facts.outputs} classes need at least as many examples")
            )
        return self

    def generate_arrays(self) -> "dict[str, Array]":
        """`inputs` float32 (N, *input_shape) and `targets` int64 (N,); the same on every machine."""
        import numpy as np

        draws = StableRandom(self.seed)
        facts = self.facts()
        labels = np.arange(facts.examples, dtype=np.int64) % facts.outputs
        labels = labels[np.argsort(draws.uniform(facts.examples), kind="stable")]
        inputs = np.round(self.draw_inputs(labels, draws) / GRID) * GRID
        return {"inputs": np.ascontiguousarray(inputs, dtype=np.float32), "targets": labels}


class StableRandom:
    """Random numbers that no release of NumPy changes: PCG64's raw bits, and our own arithmetic.

    NumPy guarantees the stream of a bit generator for all releases, but not that of `Generator.normal`.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    @cached_property
    def _bit_generator(self) -> Any:
        import numpy as np

        return np.random.PCG64(self._seed)

    def uniform(self, *shape: int) -> "Array":
        """Uniform numbers in [0, 1), float64 of this shape."""
        import math

        raw = self._bit_generator.random_raw(math.prod(shape))
        numbers: Array = ((raw >> 11) * 2.0**-53).reshape(shape)
        return numbers

    def normal(self, *shape: int) -> "Array":
        """Normal numbers of mean 0 and variance 1, float64 of this shape (Box & Muller 1958)."""
        import numpy as np

        radius = np.sqrt(-2 * np.log(1 - self.uniform(*shape)))
        numbers: Array = radius * np.cos(2 * np.pi * self.uniform(*shape))
        return numbers
