"""What a prepare process receives. The runner's process imports it with the kinds of job, so it imports no service."""

from typing import Literal

from core.recipe.assignment import AnyAssignment
from core.recipe.component import DEFERRED
from core.recipe.prepare import PrepareSpec


class PrepareAssignment(AnyAssignment):
    """One attempt to prepare one dataset; `source` is a descriptor of its bytes in the worker's process."""

    model_config = DEFERRED
    kind: Literal["prepare"] = "prepare"
    spec: PrepareSpec
    source: int
