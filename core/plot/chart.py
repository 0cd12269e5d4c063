"""What to draw, without layout: the description of a chart or a map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

AxisKind = Literal["auto", "linear", "log"]
Theme = Literal["auto", "light", "dark"]


@dataclass(frozen=True, slots=True)
class Band:
    """The interval around a curve; both sequences have the length of the curve, NaN where the interval is unknown."""

    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True, slots=True)
class Curve:
    """Points in the order of x, which is finite. A y that is not finite leaves a gap and a mark.

    `colour` is an index into the palette, then into the dash patterns: all indices below 21 look different.
    """

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int = 0
    band: Band | None = None
    faint: bool = False  # drawn thin, without an entry in the legend


@dataclass(frozen=True, slots=True)
class ShadedSpan:
    """A shaded range of x, with its label above."""

    start: float
    stop: float
    label: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A dashed line across the panel at x, with its label above."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Level:
    """A dashed line across the panel at y, which the axis includes, with its label, if any, at its right end."""

    y: float
    label: str


@dataclass(frozen=True, slots=True)
class Dots:
    """Events marked on the curves; the label is in the legend."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float]
    colour: int | None = 1  # None: that of text
    hollow: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share a y axis, with a title and a legend above them.

    `most` is the value that no point can exceed, an accuracy of 1 for instance: the axis ends there.
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
    """Panels, one below the other, over one x axis. With `one_legend` the first panel's legend is that of all."""

    summary: str  # the text for screen readers
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
    """Paths over a function: with contour lines if it has two dimensions, along its curve if it has one.

    `window` is the range of each axis that must be visible. `surface` is evaluated there, and a little beyond.
    """

    summary: str  # the text for screen readers
    heading: str
    surface: Callable[..., float]
    window: Sequence[tuple[float, float]]
    ways: Sequence[PointPath]
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """The size in pixels and the theme; without a height the picture has its natural height."""

    width: int = 760
    height: int | None = None
    theme: Theme = "auto"
