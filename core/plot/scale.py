"""From data to pixels: the range of an axis, whether it is logarithmic, and the pixel of a value."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from core.plot.chart import AxisKind

BEYOND = 1e300  # the limit of an axis; a value beyond it is drawn as infinite
NEAR_ZERO = 0.35  # an axis begins at zero when its lowest value lies within this share of the highest
DECADES = 2.0  # the least range of a logarithmic axis that is chosen automatically
_NOTHING = 1e-290
MIDDLE = 0.8  # at least half of the values must be below this share of the logarithmic range


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps `low` to the pixel `start` and `high` to the pixel `stop`."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def can_show(self, value: float) -> bool:
        """Whether the value can be drawn on this axis."""
        return -BEYOND <= value <= BEYOND and (value > 1 / BEYOND or not self.log)


def is_log(values: Sequence[float], kind: AxisKind) -> bool:
    """Whether finite values belong on a logarithmic axis.

    With "auto" they do when they are positive and span more than two decades, unless only a few of them are that
    small: a cosine that ends near zero, or an accuracy that starts there, is easier to read on a linear axis.
    """
    if kind == "linear" or not values:
        return False
    if kind == "log":
        return any(value > 1 / BEYOND for value in values)
    lowest, highest = min(values), max(values)
    if lowest < 1 / BEYOND or math.log10(highest) - math.log10(lowest) <= DECADES:
        return False
    middle = sorted(values)[(len(values) - 1) // 2]
    return math.log(middle / lowest) <= MIDDLE * math.log(highest / lowest)


def y_range(values: Sequence[float], *, log: bool, most: float = math.inf) -> tuple[float, float]:
    """The range of a y axis: the finite `values` with a margin, and zero if it is near; it ends at `most`."""
    low, high = _padded_range(values, log=log)
    return low, min(high, most) if all(value <= most for value in values) and low < most else high


def _padded_range(values: Sequence[float], *, log: bool) -> tuple[float, float]:
    shown = [value for value in values if value > 1 / BEYOND] if log else values
    if not shown:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = min(shown), max(shown)
    if log:
        air = (high / low) ** 0.04 if high > low * (1 + 1e-9) else 2.0
        return low / air, high * air
    if high - low <= 1e-9 * max(abs(low), abs(high)) or max(abs(low), abs(high)) < _NOTHING:
        return _range_around(low)
    if 0 <= low <= NEAR_ZERO * high:
        return 0.0, high * 1.05
    if NEAR_ZERO * low <= high <= 0:
        return low * 1.05, 0.0
    air = 0.05 * (high - low)
    return (max(0.0, low - air) if low >= 0 else low - air), (min(0.0, high + air) if high <= 0 else high + air)


def x_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of an x axis: from the least to the greatest value, and zero if it is near."""
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        return _range_around(low)
    return (0.0 if 0 <= low <= NEAR_ZERO * high else low), high


def _range_around(value: float) -> tuple[float, float]:
    """A range around a single value."""
    return (0.0, 1.0) if abs(value) < _NOTHING else (value - 0.1 * abs(value), value + 0.1 * abs(value))
