"""Eigenvalues as ticks on a line."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from worker.pictures.figure import finite_values

LINEAR = 1e-3  # share of the largest, below which the axis is linear, so that it has 0 and both signs


def draw_ritz_values(ax: Axes, rows: Sequence[tuple[str, Sequence[float]]]) -> None:
    """A named row of ticks for each spectrum; the axis is symmetric-logarithmic, linear around 0."""
    found = [finite_values(values) for _, values in rows]
    every = np.concatenate(found) if found else np.zeros(0)
    largest = float(np.abs(every).max()) if len(every) else 0.0
    for place, values in enumerate(found):
        ax.plot(values, np.full(len(values), place), "|", markersize=16, color="tab:blue")
    if largest > 0:
        least, most = math.floor(math.log10(LINEAR * largest)), math.ceil(math.log10(largest))
        ax.set_xscale("symlog", linthresh=10.0**least)
        powers = [10.0**power for power in range(least, most + 1)]
        ax.set_xticks([*(-each for each in reversed(powers)), 0.0, *powers])
        ax.set_xticks([], minor=True)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set_xlim(min(1.6 * float(every.min()), -powers[0]), max(1.6 * float(every.max()), powers[0]))
    ax.axvline(0, color="0.4", linewidth=0.9)
    ax.set_yticks(range(len(rows)), [name for name, _ in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("eigenvalue (linear near 0, logarithmic outwards)")
