"""The rectangle that the curves of a panel are drawn into, with its scales and ticks."""

from dataclasses import dataclass

from core.plot.scale import Scale
from core.plot.ticks import Tick


@dataclass(frozen=True, slots=True)
class Frame:
    """Edges in pixels; y grows downwards, so the y scale starts at the bottom."""

    left: float
    top: float
    right: float
    bottom: float
    x: Scale
    y: Scale
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
