"""The losses. A new one: its file, its line in the union, and a builder in core/engine/evaluation/losses.py."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from core.recipe.facts import Task
from core.recipe.losses.base import LossSpec
from core.recipe.losses.cross_entropy import CrossEntropy
from core.recipe.losses.function import FunctionValue
from core.recipe.losses.mse import MeanSquaredError
from core.recipe.plugins import JoinPlugins

Loss = Annotated[
    CrossEntropy
    | MeanSquaredError
    | FunctionValue,
    Field(discriminator="name"),
    JoinPlugins("basin.losses", by_name=True),
]  # fmt: skip

DEFAULT_LOSSES: Final[Mapping[Task, LossSpec]] = {
    "classification": CrossEntropy(),
    "regression": MeanSquaredError(),
    "function": FunctionValue(),
    "language_model": CrossEntropy(),
}
"""Task -> the loss of a job that names none."""

__all__ = ["DEFAULT_LOSSES", "Loss", "LossSpec"]
