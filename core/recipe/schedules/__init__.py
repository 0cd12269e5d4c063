"""The learning-rate schedules. A new one: its file, its line in the union, and in that of what a sequence may hold."""

from typing import Annotated

from pydantic import Field

from core.recipe.schedules.constant import Constant
from core.recipe.schedules.cosine import Cosine
from core.recipe.schedules.cosine_restarts import CosineRestarts
from core.recipe.schedules.cyclic import Cyclic
from core.recipe.schedules.exponential import Exponential
from core.recipe.schedules.inverse_sqrt import InverseSqrt
from core.recipe.schedules.linear import Linear
from core.recipe.schedules.multistep import MultiStep
from core.recipe.schedules.one_cycle import OneCycle
from core.recipe.schedules.plateau import Plateau
from core.recipe.schedules.polynomial import Polynomial
from core.recipe.schedules.sequence import Sequence
from core.recipe.schedules.step import Step
from core.recipe.schedules.wsd import WSD

Schedule = Annotated[
    Constant
    | Step
    | MultiStep
    | Exponential
    | Cosine
    | CosineRestarts
    | Cyclic
    | OneCycle
    | Linear
    | Polynomial
    | InverseSqrt
    | WSD
    | Plateau
    | Sequence,
    Field(discriminator="name"),
]  # fmt: skip
