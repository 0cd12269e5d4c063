"""What all pictures share: size, fonts, the caption under them, and how they are written."""

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH, HEIGHT = 7.2, 4.8  # inches
DPI: Final = 144
STYLE: Final[Any] = {
    "svg.hashsalt": "basin",  # the same picture has the same bytes
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def figure(caption: str, width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty one with a caption that says what was computed, and how."""
    with mpl.rc_context(STYLE):
        made = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(made)
        made.supxlabel(wrapped(caption, width), fontsize=7.5, color="0.35", ha="left", x=0.01)
    return made


def wrapped(text: str, width: float) -> str:
    """Lines that fit below a figure of so many inches."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= width * 17:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def finished(name: str, made: Figure) -> dict[str, bytes]:
    """The figure as SVG and as PNG."""
    svg, png = io.BytesIO(), io.BytesIO()
    with mpl.rc_context(STYLE):
        made.savefig(svg, format="svg", metadata={"Date": None})
        made.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return {f"{name}.svg": svg.getvalue(), f"{name}.png": png.getvalue()}


def finite(values: Sequence[float]) -> list[float]:
    """Those that are numbers."""
    return [value for value in values if math.isfinite(value)]
