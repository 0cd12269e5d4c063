"""What all pictures share: the size, the fonts, the caption below, and the files."""

import io
import math
import re
import warnings
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

WIDTH, HEIGHT = 7.2, 4.2  # inches, without the caption
DPI: Final = 144
CAPTION: Final = 7.5  # points
LEADING: Final = 1.45  # of the caption's size
EDGE: Final = 0.01  # margin left of the caption, as a share of the width
SPARE: Final = 0.95  # share of the width that a caption uses, since the widths of fonts differ between machines
DECADES: Final = 30.0  # highest / lowest from which an axis is logarithmic
STYLE: Final[Any] = {
    "svg.hashsalt": "basin",  # the same picture has the same bytes
    "svg.fonttype": "none",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "legend.fontsize": 8.0,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}
SPLITS: Final = {"train": "tab:blue", "val": "tab:green", "test": "tab:orange"}
PLACES: Final = re.compile(rb'(?<= d=")[^"]*')
DIGITS: Final = re.compile(rb"(\.\d\d)\d+")


def new_figure(caption: str, width: float = WIDTH, height: float = HEIGHT) -> Figure:
    """An empty figure with a caption; its height grows with the lines of the caption."""
    made = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(made)
    lines = wrap_text(caption, canvas, width * SPARE)
    made.set_figheight(height + 0.1 + len(lines) * CAPTION * LEADING / 72)
    text = made.supxlabel("\n".join(lines), fontsize=CAPTION, color="0.35", ha="left", x=EDGE, linespacing=1.3)
    text.set_parse_math(False)
    return made


def wrap_text(text: str, canvas: FigureCanvasAgg, width: float) -> list[str]:
    """Lines of at most `width` inches; a word that does not fit is broken."""
    renderer: Any = canvas.get_renderer()  # type: ignore[no-untyped-call]
    font, most = FontProperties(size=CAPTION), width * canvas.figure.dpi

    def fits_width(line: str) -> bool:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")
            return bool(renderer.get_text_width_height_descent(line, font, ismath=False)[0] <= most)

    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if fits_width(longer):
            lines[-1] = longer
            continue
        rest = word
        while not fits_width(rest):
            end = max(1, bisect_left(range(len(rest)), x=True, key=lambda last: not fits_width(rest[: last + 1])))
            lines.append(rest[:end])
            rest = rest[end:]
        lines.append(rest)
    return [line for line in lines if line]


def render_figure(name: str, made: Figure) -> dict[str, bytes]:
    """The figure as SVG and as PNG."""
    svg, png = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font lacks; a browser has other fonts
        made.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
        made.set_layout_engine("none")  # the layout is fixed by now
        made.savefig(svg, format="svg", metadata={"Date": None})
    return {f"{name}.svg": round_paths(svg.getvalue()), f"{name}.png": png.getvalue()}


def round_paths(svg: bytes) -> bytes:
    """Round the coordinates of paths to a hundredth of a point: not visible, and half the size."""
    return PLACES.sub(lambda found: DIGITS.sub(rb"\1", found[0]), svg)


def shorten_middle(text: str, most: int = 80) -> str:
    """The text; if it is longer than `most`, an ellipsis replaces its middle."""
    return text if len(text) <= most else f"{text[: most - most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def plain_label(text: str, most: int = 36) -> str:
    """A name as a short label, without math markup."""
    return shorten_middle(text, most).replace("$", r"\$")


def distinct_labels(texts: Sequence[str], most: int = 36) -> list[str]:
    """Names as short labels, numbered where two of them would be equal."""
    found = [plain_label(each, most) for each in texts]
    return found if len(set(found)) == len(found) else [f"{order}: {each}" for order, each in enumerate(found, 1)]


def finite_values(values: Iterable[float | None]) -> NDArray[np.float64]:
    """The values that are finite numbers."""
    return np.array([each for each in values if each is not None and math.isfinite(each)], dtype=float)


def as_floats(values: Iterable[float | None]) -> NDArray[np.float64]:
    """The values as floats; NaN, which is not drawn, in place of what is not finite."""
    found = np.array([math.nan if each is None else each for each in values], dtype=float)
    return np.where(np.isfinite(found), found, math.nan)


def set_y_axis(ax: Axes, name: str, values: Iterable[float | None]) -> bool:
    """Label the y axis, make it logarithmic if the values are positive and far apart; return whether it is."""
    found = finite_values(values)
    logarithmic = bool(len(found)) and found.min() > 0 and found.max() / found.min() > DECADES
    if logarithmic:
        ax.set_yscale("log")
    ax.set_ylabel(f"{name} (log scale)" if logarithmic else name)
    return logarithmic


def draw_legend(ax: Axes, columns: int = 3) -> None:
    """Draw the legend above the axes, where it covers nothing."""
    if ax.get_legend_handles_labels()[0]:
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0.0, 1.0), "borderaxespad": 0.2}
        ax.legend(ncols=columns, frameon=False, **place)


def format_number(value: float | None) -> str:
    """A number in a caption, to three digits."""
    return "unknown" if value is None or math.isnan(value) else f"{value:.3g}"


def join_words(words: Sequence[str]) -> str:
    """a, b and c"""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def draw_empty(ax: Axes, message: str = "nothing computed yet") -> None:
    """Draw a message in axes without data."""
    place: Any = {"transform": ax.transAxes, "ha": "center", "va": "center", "zorder": 9}
    ax.text(0.5, 0.5, message, color="0.35", backgroundcolor="white", **place)
    ax.set_yticks([])
