"""The series that a run monitors, and whether lower or higher is better."""

from functools import cache
from typing import Annotated

from pydantic import Field

from core.recipe.metrics import Metric, Mode
from core.recipe.plugins import union_members

Monitor = Annotated[str, Field(min_length=1, max_length=64)]
"""An evaluation series: `val.loss`, `val.accuracy`, `swa.val.loss`, …"""


@cache
def metric_modes() -> dict[str, Mode]:
    """Metric -> whether lower or higher is better, as its class says."""
    return {str(each.model_fields["name"].default): each.mode for each in union_members(Metric)}


def default_mode(monitor: str) -> Mode:
    """Whether lower or higher is better for a series: val.accuracy -> max. Of a loss and what is unknown, lower."""
    return metric_modes().get(monitor.rpartition(".")[2], "min")
