"""The learning-rate schedules. A new one: its file, and its line in `StepSchedule`, or here if its rate depends on more
than the step.
"""

from typing import Annotated

from pydantic import Field

from core.recipe.plugins import JoinPlugins
from core.recipe.schedules.plateau import Plateau
from core.recipe.schedules.sequence import Sequence
from core.recipe.schedules.step_schedules import StepSchedule

Schedule = Annotated[StepSchedule | Plateau | Sequence, Field(discriminator="name"), JoinPlugins("basin.schedules")]
