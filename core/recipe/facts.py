"""The facts of a dataset that are known without reading it. Models and plans are built from them."""

from dataclasses import dataclass
from typing import Literal

Task = Literal["classification", "regression", "function", "language_model"]


@dataclass(frozen=True, slots=True)
class DataFacts:
    """`inputs`: float32 (examples, *input_shape); targets: int64 (examples,) classes or float32 (examples, outputs).

    The last len(cardinalities) inputs of a table are codes, whole numbers from 0 to below their cardinality. An example
    of a text is `context` tokens below `vocabulary`, and its targets are the tokens that follow each of them.
    """

    examples: int
    input_shape: tuple[int, ...]
    task: Task
    outputs: int
    cardinalities: tuple[int, ...] = ()
    vocabulary: int | None = None
    context: int | None = None

    @property
    def classes(self) -> int | None:
        return self.outputs if self.task == "classification" else None

    @property
    def features(self) -> int:
        """The number of values in one input."""
        total = 1
        for size in self.input_shape:
            total *= size
        return total
