"""What is watched while a run trains, and which way is better."""

from typing import Annotated, Literal

from pydantic import Field

Mode = Literal["min", "max"]
MODES: dict[str, Mode] = {"loss": "min", "mae": "min", "accuracy": "max", "r2": "max"}
"""Which way is better, by what is measured."""

Monitor = Annotated[str, Field(min_length=1, max_length=64)]
"""An evaluation series: `val.loss`, `val.accuracy`, `swa.val.loss`, …"""


def default_mode(monitor: str) -> Mode:
    """Which way a series is better: val.accuracy -> max."""
    return MODES.get(monitor.rpartition(".")[2], "min")
