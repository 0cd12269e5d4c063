"""The series that a run monitors, and whether lower or higher is better."""

from typing import Annotated, Literal

from pydantic import Field

Mode = Literal["min", "max"]
MODES: dict[str, Mode] = {"loss": "min", "mae": "min", "accuracy": "max", "r2": "max"}
"""Whether lower or higher is better, by metric."""

Monitor = Annotated[str, Field(min_length=1, max_length=64)]
"""An evaluation series: `val.loss`, `val.accuracy`, `swa.val.loss`, …"""


def default_mode(monitor: str) -> Mode:
    """Whether lower or higher is better for a series: val.accuracy -> max."""
    return MODES.get(monitor.rpartition(".")[2], "min")
