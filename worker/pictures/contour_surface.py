"""A loss surface as filled contours, and as a surface in three dimensions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from numpy.typing import NDArray

from worker.pictures.figure import draw_empty, finite_values, format_number

Values = NDArray[np.float64]

COLOURS: Final = "viridis"  # perceptually uniform, also in grey
BANDS: Final = 12
CELLS: Final = 51  # points along an axis of a picture's 3-D surfaces: more are slow, and not visible
FINE: Final = 151  # the same for contours
WIDE: Final = 8.0  # highest / lowest loss from which levels are logarithmic
STEEP: Final = 0.02  # share of the range; if the median is below it, levels grow geometrically
FAR: Final = 1000.0  # times the third quartile of the heights, above which values are clipped
MANTISSAS: Final = {1.2: (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), 2.2: (1, 1.5, 2, 3, 5, 7), 4.5: (1, 2, 5), 9.0: (1, 3)}
CLOSE: Final = 1e-3  # share of the lowest value; within it the colour bar shows differences, as labels would look alike
LINES: Final[Any] = {"colors": "white", "linewidths": 0.4, "alpha": 0.6, "linestyles": "solid"}
UNKNOWN: Final[Any] = {"facecolor": "0.93", "edgecolor": "0.75", "hatch": "////", "linewidth": 0.0, "zorder": 0.1}


@dataclass(frozen=True, slots=True)
class ContourSurface:
    """Values (y, x) at the coordinates `x` and `y`, NaN where unknown. `levels` ascend; values are clipped at the last.

    `cut` counts the points above the last level, `infinite` those that were computed and are not finite.
    """

    x: Values
    y: Values
    values: Values
    levels: Values
    cut: int
    infinite: int

    @classmethod
    def from_values(cls, x: Values, y: Values, values: Values, computed: int, levels: Values) -> Self:
        """The surface of `values`, of which `computed` points are known: the finite ones, and the `infinite` ones."""
        finite = np.isfinite(values)
        kept = np.where(finite, values, math.nan)
        cut = int((kept[finite] > levels[-1] + 1e-9 * (levels[-1] - levels[0])).sum())
        return cls(x, y, kept, levels, cut, computed - int(finite.sum()))

    @property
    def has_area(self) -> bool:
        """Whether at least one cell of the grid is known, so that there is an area to draw."""
        return bool(np.isfinite(self.values[:-1, :-1] + self.values[1:, 1:]).any())

    @property
    def is_flat(self) -> bool:
        """Whether all values are equal."""
        return len(self.levels) == 2

    def lowest_point(self) -> tuple[float, float, float] | None:
        """x, y and value of the lowest point."""
        if not np.isfinite(self.values).any():
            return None
        row, column = np.unravel_index(np.nanargmin(self.values), self.values.shape)
        return float(self.x[column]), float(self.y[row]), float(self.values[row, column])

    def downsample_axes(self, most: int) -> Self:
        """The surface with at most `most` points along each axis."""
        across, down = spread_indices(len(self.x), most), spread_indices(len(self.y), most)
        return replace(self, x=self.x[across], y=self.y[down], values=self.values[np.ix_(down, across)])

    def warp_values(self, values: Values) -> Values:
        """Values on the scale of the levels, so that linear interpolation gives the right contours."""
        found = np.log10(values) if self.is_logarithmic else np.sqrt(np.maximum(values - self.levels[0], 0))
        return np.asarray(found)

    def clip_values(self) -> Values:
        """The values, clipped at the last level."""
        return np.asarray(np.minimum(self.values, self.levels[-1]))

    def band_share(self, values: Values) -> Values:
        """Values mapped to 0 at the lowest level and 1 at the highest, with an equal share for each band."""
        return np.asarray(np.interp(values, self.levels, np.linspace(0, 1, len(self.levels))))

    @property
    def is_logarithmic(self) -> bool:
        """Whether the levels are logarithmic."""
        return bool(self.levels[0] > 0 and self.levels[-1] / self.levels[0] >= WIDE)

    def describe_levels(self) -> str:
        """The caption's sentences on the levels."""
        if not self.has_area:
            return ""
        if self.is_flat:
            return f"It is {format_number(float(self.levels.mean()))} everywhere: there is nothing to see."
        heights = "by about equal factors" if self.is_logarithmic else "with the height above the lowest point"
        return f"Levels grow {heights}. {self.describe_cuts()}".strip()

    def describe_cuts(self) -> str:
        """The caption's sentence on points above the last level."""
        return (
            f"{self.cut:,} points are above {format_number(float(self.levels[-1]))} and drawn there."
            if self.cut
            else ""
        )


def loss_levels(values: Iterable[Values]) -> Values:
    """Levels that several loss surfaces share, so that they can be compared."""
    found = finite_values(np.concatenate([each.ravel() for each in values]).tolist())
    return rising_levels(float(found.min()), cut_level(found), found) if len(found) else levels_around(0.0)


def share_levels(values: Iterable[Values]) -> Values:
    """Shared levels for metrics between 0 and 1, or with a similarly even spread."""
    found = finite_values(np.concatenate([each.ravel() for each in values]).tolist())
    return even_levels(float(found.min()), float(found.max())) if len(found) else levels_around(0.0)


def cut_level(values: Values) -> float:
    """The value at which to clip: the highest, or FAR times the third quartile above the lowest."""
    low, high = float(values.min()), float(values.max())
    usual = float(np.quantile(values, 0.75)) - low
    return low + FAR * usual if 0 < FAR * usual < high - low else high


def rising_levels(low: float, high: float, values: Values) -> Values:
    """Levels whose distance grows with the height.

    Logarithmic with round numbers where the losses are positive and far apart. Else quadratic above the lowest, which
    gives a quadratic bowl evenly spaced contours, or geometric where only a few values are high.
    """
    if nearly_equal(low, high):
        return levels_around(low)
    if low > 0 and high / low >= WIDE:
        decades = math.log10(high / low)
        mantissas = next((each for most, each in MANTISSAS.items() if decades <= most), (1,))
        step = max(1, round(decades / BANDS)) if decades > 9 else 1
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [mantissa * 10.0**power for power in powers if power % step == 0 for mantissa in mantissas]
        inner = [mark for mark in marks if 1.02 * low < mark < 0.98 * high]
        return np.array([low, *inner, high])
    usual = (float(np.median(values)) - low) / (high - low)
    shares = np.linspace(0, 1, BANDS + 1) ** 2 if usual > STEEP else np.append(0, np.geomspace(1e-3, 1, BANDS))
    return low + (high - low) * shares


def even_levels(low: float, high: float) -> Values:
    """Evenly spaced levels."""
    if nearly_equal(low, high):
        return levels_around(low)
    return np.array(list(MaxNLocator(BANDS).tick_values(low, high)), dtype=float)


def nearly_equal(low: float, high: float) -> bool:
    return high - low <= 1e-9 * max(abs(low), abs(high))


def levels_around(value: float) -> Values:
    """Two levels with the only value between them."""
    spare = 0.01 * abs(value) or 0.01
    return np.array([value - spare, value + spare])


def level_labels(levels: Values) -> list[str]:
    """Labels with as many digits as tell neighbours apart."""
    gaps = np.abs(np.diff(levels))
    found = []
    for place, level in enumerate(levels):
        gap = float(gaps[max(0, place - 1) : place + 1].min())
        digits = math.ceil(math.log10(abs(level) / gap)) + 1 if abs(level) > gap > 0 else 1
        found.append(f"{level:.{min(max(digits, 2), 8)}g}" if abs(level) > 1e-12 * gap else "0")
    return found


def band_colours(levels: Values) -> list[Any]:
    """A colour for each band between two levels."""
    count = len(levels) - 1
    return [mpl.colormaps[COLOURS]((place + 0.5) / count) for place in range(count)]


def draw_frame(ax: Axes, relief: ContourSurface) -> None:
    """The area of the surface, hatched where nothing is drawn over it."""
    x, y = relief.x, relief.y
    ax.add_patch(Rectangle((x[0], y[0]), x[-1] - x[0], y[-1] - y[0], **UNKNOWN))
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.locator_params(axis="x", nbins=6)
    ax.grid(visible=False)


def draw_bands(made: Figure, ax: Axes, relief: ContourSurface, name: str) -> None:
    """Coloured bands with thin lines between them, and a colour bar with the levels."""
    draw_frame(ax, relief)
    if not relief.has_area:
        draw_empty(ax)
        return
    relief, levels = relief.downsample_axes(FINE), relief.warp_values(relief.levels)
    values = np.ma.masked_invalid(relief.warp_values(relief.clip_values()))
    filled = ax.contourf(relief.x, relief.y, values, levels=levels, colors=band_colours(levels))
    if not relief.is_flat:
        ax.contour(relief.x, relief.y, values, levels=levels[1:-1], **LINES)
    every = max(1, math.ceil(len(levels) / 14))
    bar = made.colorbar(filled, ax=ax, spacing="uniform", pad=0.02)
    low = float(relief.levels[0])
    close = not relief.is_flat and relief.levels[-1] - low < CLOSE * abs(low)
    labels = level_labels(relief.levels - low if close else relief.levels)
    bar.ax.set_yticks(levels[::every], labels[::every], fontsize=7.5)
    bar.ax.minorticks_off()
    bar.set_label(f"{name} less {low:.6g}" if close else name)


def draw_surface_3d(ax: Any, relief: ContourSurface, name: str, most: int) -> None:
    """The surface in three dimensions, with at most `most` points along each axis.

    The vertical axis is the loss, or its logarithm where the levels are logarithmic.
    """
    relief = relief.downsample_axes(most)
    values = relief.clip_values()
    upwards = np.log10(values) if relief.is_logarithmic else values
    x, y = np.meshgrid(relief.x, relief.y)
    points = cell_corners(np.stack([x, y, upwards], 2))
    cells = np.isfinite(points).all((2, 3))
    colours = mpl.colormaps[COLOURS](relief.band_share(cell_corners(values[:, :, None])[cells].mean((1, 2))))
    ax.add_collection3d(
        Poly3DCollection(points[cells], facecolors=colours, linewidth=min(0.2, 4 / len(x)), edgecolors="white")
    )
    seen = points[cells].reshape(-1, 3)
    ax.auto_scale_xyz(*seen.T)
    ax.set_xlim(relief.x[0], relief.x[-1])
    ax.set_ylim(relief.y[0], relief.y[-1])
    if relief.is_logarithmic:
        ticks = decade_levels(relief.levels)
        ax.set_zticks(np.log10(ticks), [f"{each:.3g}" for each in ticks])
    ax.set_zlabel(f"{name} (log scale)" if relief.is_logarithmic else name, fontsize=8)
    ax.view_init(elev=32, azim=-60)
    ax.set_box_aspect((4, 4, 3), zoom=0.84)
    ax.tick_params(labelsize=7)
    for axis in ("x", "y"):
        ax.locator_params(axis=axis, nbins=5)


def spread_indices(count: int, most: int) -> NDArray[np.intp]:
    """At most `most` of `count` indices, evenly spaced, with both ends."""
    return np.unique(np.round(np.linspace(0, count - 1, min(count, most))).astype(np.intp))


def cell_corners(points: Values) -> Values:
    """The four corners of each cell of a grid, in order around it: (y, x, n) -> (y - 1, x - 1, 4, n)."""
    return np.stack([points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]], 2)


def decade_levels(levels: Values) -> Values:
    """The powers of ten within the levels, or some of the levels where there are too few powers."""
    low, high = math.ceil(math.log10(levels[0]) - 1e-9), math.floor(math.log10(levels[-1]) + 1e-9)
    if high - low < 2:
        return levels[1:-1][:: max(1, len(levels) // 5)]
    return 10.0 ** np.arange(low, high + 1, max(1, (high - low) // 5), dtype=float)


def draw_marker(ax: Axes, place: Sequence[float], label: str, sign: str = "o", colour: str = "white") -> None:
    """A marked point on a surface, visible on every colour."""
    ax.plot(*place[:2], sign, color=colour, markeredgecolor="black", markersize=7, label=label, linestyle="none")
