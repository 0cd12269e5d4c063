"""The optimizers. A new one: its file, and its line in the union."""

from typing import Annotated

from pydantic import Field

from core.recipe.optimizers.adadelta import Adadelta
from core.recipe.optimizers.adafactor import Adafactor
from core.recipe.optimizers.adagrad import Adagrad
from core.recipe.optimizers.adam import Adam
from core.recipe.optimizers.adamax import Adamax
from core.recipe.optimizers.adamw import AdamW
from core.recipe.optimizers.asgd import ASGD
from core.recipe.optimizers.lbfgs import LBFGS
from core.recipe.optimizers.muon import Muon
from core.recipe.optimizers.nadam import NAdam
from core.recipe.optimizers.pytorch_optimizer import PytorchOptimizer
from core.recipe.optimizers.radam import RAdam
from core.recipe.optimizers.rmsprop import RMSprop
from core.recipe.optimizers.rprop import Rprop
from core.recipe.optimizers.schedule_free_adamw import ScheduleFreeAdamW
from core.recipe.optimizers.schedule_free_sgd import ScheduleFreeSGD
from core.recipe.optimizers.sgd import SGD
from core.recipe.plugins import JoinPlugins

Optimizer = Annotated[
    SGD
    | Adam
    | AdamW
    | NAdam
    | RAdam
    | Adamax
    | RMSprop
    | Adagrad
    | Adadelta
    | Adafactor
    | ASGD
    | Rprop
    | LBFGS
    | Muon
    | ScheduleFreeSGD
    | ScheduleFreeAdamW
    | PytorchOptimizer,
    Field(discriminator="name"),
    JoinPlugins("basin.optimizers"),
]  # fmt: skip
