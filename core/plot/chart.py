"""What to draw, before anybody thinks of pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

AxisKind = Literal["auto", "linear", "log"]
Theme = Literal["auto", "light", "dark"]


@dataclass(frozen=True, slots=True)
class Band:
    """Where the truth behind a curve likely lies; as long as the curve, NaN where nothing is known."""

    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of x, which is finite. A y that is not finite leaves a gap and a mark.

    `colour` counts through the palette, then the dashes change: two numbers never look the same below 21.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    band: Band | None = None
    faint: bool = False  # a companion of the curves that matter; it has no line in the legend


@dataclass(frozen=True, slots=True)
class ShadedSpan:
    """A stretch of x that is shaded, with its name above."""

    start: float
    stop: float
    label: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A dashed line across the panel at x, with its name above."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Level:
    """A dashed line across the panel at y, which the axis reaches, with its name, if it has one, at its right end."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Dots:
    """Places on the curves at which something happened; the label stands in the legend."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int | None = 1  # None: that of text
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share a y axis, with a title and a legend above them.

    `most` is what no value can exceed, an accuracy of 1 for instance: the axis does not go on above it.
    """

    title: str
    curves: Sequence[Curve]
    y: AxisKind = "auto"
    spans: Sequence[ShadedSpan] = ()
    rules: Sequence[Rule] = ()
    dots: Sequence[Dots] = ()
    levels: Sequence[Level] = ()
    most: float = math.inf


@dataclass(frozen=True, slots=True)
class Chart:
    """Panels, one below the other, over one x axis. With `one_legend` the first panel's legend stands for all."""

    summary: str  # for those who do not see it
    panels: Sequence[Panel]
    x_label: str
    title: str | None = None
    x_whole: bool = False  # x counts something
    one_legend: bool = False


@dataclass(frozen=True, slots=True)
class PointPath:
    """Places in the order in which they were visited, each of one coordinate or of two."""

    label: str
    places: Sequence[Sequence[float]]
    colour: int = 0


@dataclass(frozen=True, slots=True)
class Map:
    """Ways over a function: of two numbers, with lines of equal height; of one, along its curve.

    `window` is what must be seen along each axis. The function is asked for its heights there, and a little beyond.
    """

    summary: str  # for those who do not see it
    heading: str
    surface: Callable[..., float]
    window: Sequence[tuple[float, float]]
    ways: Sequence[PointPath]
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """Pixels and colours; without a height the picture takes what it needs."""

    width: int = 760
    height: int | None = None
    theme: Theme = "auto"
