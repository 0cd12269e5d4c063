"""The learning-rate schedules. A new one: its file, and its line in the union."""

from typing import Annotated

from pydantic import Field

from core.recipe.schedules.constant import Constant
from core.recipe.schedules.cosine import Cosine
from core.recipe.schedules.exponential import Exponential
from core.recipe.schedules.linear import Linear
from core.recipe.schedules.step import Step

Schedule = Annotated[
    Constant
    | Step
    | Exponential
    | Cosine
    | Linear,
    Field(discriminator="name"),
]  # fmt: skip
