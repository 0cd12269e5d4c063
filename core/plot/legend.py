"""The legend: entries in rows above the curves, where they cover nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from core.plot import text_width
from core.plot.chart import Curve, Dots, Panel
from core.plot.curves import colour_class, dash_pattern
from core.plot.style import LABEL
from core.plot.svg import escape_text, format_number, svg_tag

ROW = 20  # pixels
SWATCH, SPACE, APART = 22, 6, 18  # pixels: the line, between it and its label, between two entries
LONGEST = 260  # pixels of one label


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """An entry, its label shortened to fit, and its position: pixels from the left, and its row."""

    entry: Curve | Dots
    label: str
    x: float
    row: int


def legend_entries(panel: Panel) -> list[Curve | Dots]:
    """The curves and dots that have an entry in the legend."""
    return [*(one for one in panel.curves if not one.faint), *panel.dots]


def place_entries(found: Sequence[Curve | Dots], left: float, first: float, right: float) -> list[LegendEntry]:
    """Entries in one row from `first`, after the title, if they fit; else in columns from `left`, below the title."""
    longest = min(LONGEST, right - left - SWATCH - SPACE)
    labels = [text_width.fit_text(entry.label, LABEL, longest) for entry in found]
    widths = [SWATCH + SPACE + text_width.text_width(label, LABEL) + APART for label in labels]
    if first + sum(widths) - APART <= right:
        starts = accumulate(widths, initial=first)
        return [LegendEntry(entry, label, x, 0) for entry, label, x in zip(found, labels, starts, strict=False)]
    columns = max(1, int((right - left + APART) / max(widths)))
    wide = min(max(widths), (right - left + APART) / columns)
    below = int(first > left)
    return [
        LegendEntry(entry, label, left + wide * (place % columns), place // columns + below)
        for place, (entry, label) in enumerate(zip(found, labels, strict=True))
    ]


def row_count(done: Sequence[LegendEntry]) -> int:
    return max((one.row + 1 for one in done), default=0)


def draw_entry(one: LegendEntry, baseline: float) -> str:
    """An entry; its tooltip is the whole label."""
    y = baseline + one.row * ROW
    middle = {"cx": one.x + SWATCH / 2, "cy": y - 4}
    if isinstance(one.entry, Dots):
        swatch = svg_tag("circle", class_="hollow" if one.entry.hollow else "collected", r=4, **middle)
    elif len(one.entry.xs) == 1:
        swatch = svg_tag("circle", class_="dot", r=3, **middle)
    else:
        line = f"M{format_number(one.x + 1)} {format_number(y - 4)}h{SWATCH - 2}"
        swatch = svg_tag("path", class_="curve", stroke_dasharray=dash_pattern(one.entry), d=line)
    label = svg_tag("text", escape_text(one.label), class_="label", x=one.x + SWATCH + SPACE, y=y)
    whole = svg_tag("title", escape_text(one.entry.label))
    return svg_tag("g", whole, swatch, label, class_=colour_class(one.entry))
