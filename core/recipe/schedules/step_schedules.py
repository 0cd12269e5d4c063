"""The schedules whose rate depends on the step alone. A new one: its file, and its line in this union.

A sequence holds these and no sequence: nested sequences add nothing, and their JSON Schema would be recursive.
"""

from core.recipe.schedules.constant import Constant
from core.recipe.schedules.cosine import Cosine
from core.recipe.schedules.cosine_restarts import CosineRestarts
from core.recipe.schedules.cyclic import Cyclic
from core.recipe.schedules.exponential import Exponential
from core.recipe.schedules.inverse_sqrt import InverseSqrt
from core.recipe.schedules.linear import Linear
from core.recipe.schedules.multistep import MultiStep
from core.recipe.schedules.one_cycle import OneCycle
from core.recipe.schedules.polynomial import Polynomial
from core.recipe.schedules.step import Step
from core.recipe.schedules.wsd import WSD

StepSchedule = (
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
)
