"""The models. A new one: its file, its line in the union, and a builder in core/engine/networks if that is new."""

from typing import Annotated

from pydantic import Field

from core.recipe.models.base import Init, ModelSpec
from core.recipe.models.cnn import CNN
from core.recipe.models.logistic import Logistic
from core.recipe.models.mlp import MLP
from core.recipe.models.point import Point
from core.recipe.plugins import JoinPlugins

Model = Annotated[
    Logistic
    | MLP
    | CNN
    | Point,
    Field(discriminator="name"),
    JoinPlugins("basin.models"),
]  # fmt: skip

__all__ = ["Init", "Model", "ModelSpec"]
