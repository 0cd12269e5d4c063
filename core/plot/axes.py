"""The grid, the axes with their labels, and the marked spans, rules and levels."""

from collections.abc import Iterator, Sequence

from core.plot import text_width
from core.plot.chart import Panel, ShadedSpan
from core.plot.frame import Frame
from core.plot.style import LABEL
from core.plot.svg import escape_text, format_number, svg_tag

TICK = 4  # pixels
ABOVE = 6  # pixels between an annotation's baseline and the panel


def draw_grid(frame: Frame) -> Iterator[str]:
    """The grid lines; each on the middle of a pixel, where it is sharp."""
    places = {kind: [tick.value for tick in frame.y_ticks if bool(tick.label) == kind] for kind in (False, True)}
    for kind, name in ((False, "minor"), (True, "grid")):
        lines = [
            f"M{format_number(frame.left)} {format_number(sharp_pixel(frame.y(y)))}H{format_number(frame.right)}"
            for y in places[kind]
        ]
        if lines:
            yield svg_tag("path", class_=name, d="".join(lines))


def draw_axes(frame: Frame, x_label: str | None) -> Iterator[str]:
    """The bottom and left lines with ticks and labels; only the lowest panel has an `x_label`, and labels its ticks."""
    left, bottom = sharp_pixel(frame.left), sharp_pixel(frame.bottom)
    lines = [f"M{format_number(left)} {format_number(frame.top)}V{format_number(bottom)}H{format_number(frame.right)}"]
    lines += [
        f"M{format_number(sharp_pixel(frame.x(tick.value)))} {format_number(bottom)}v{TICK}" for tick in frame.x_ticks
    ]
    yield svg_tag("path", class_="axis", d="".join(lines))
    for tick in frame.y_ticks:
        if tick.label:
            place = {"x": frame.left - 8, "y": frame.y(tick.value) + 4}
            yield svg_tag("text", escape_text(tick.label), class_="label muted", text_anchor="end", **place)
    if x_label is None:
        return
    for tick in frame.x_ticks:
        place = {"x": frame.x(tick.value), "y": frame.bottom + 18}
        yield svg_tag("text", escape_text(tick.label), class_="label muted", text_anchor="middle", **place)
    middle = (frame.left + frame.right) / 2
    yield svg_tag(
        "text", escape_text(x_label), class_="label muted", text_anchor="middle", x=middle, y=frame.bottom + 37
    )


def draw_shades(frame: Frame, spans: Sequence[ShadedSpan]) -> Iterator[str]:
    """The shaded spans of x, behind the grid."""
    for span in spans:
        left, right = frame.x(span.start), frame.x(span.stop)
        size = {"x": left, "y": frame.top, "width": right - left, "height": frame.bottom - frame.top}
        yield svg_tag("rect", class_="shade", **size)


def draw_rules(frame: Frame, panel: Panel) -> Iterator[str]:
    """Dashed lines at x, and the labels of spans and rules above the panel; a label that would overlap is left out."""
    for rule in panel.rules:
        yield svg_tag(
            "path",
            class_="rule",
            d=f"M{format_number(sharp_pixel(frame.x(rule.x)))} {format_number(frame.top)}"
            f"V{format_number(frame.bottom)}",
        )
    free = frame.left
    named = [*((one.start, one.label) for one in panel.spans), *((one.x, one.label) for one in panel.rules)]
    for place, label in sorted(named):
        wide = text_width.text_width(label, LABEL)
        start = max(frame.left, min(frame.x(place), frame.right - wide))
        if start < free:
            continue
        yield svg_tag("text", escape_text(label), class_="label muted", x=start, y=frame.top - ABOVE)
        free = start + wide + 8


def draw_levels(frame: Frame, panel: Panel) -> Iterator[str]:
    """Dashed lines at y, each with its label if it has one; the label is below a line with no room above it."""
    for level in panel.levels:
        if not frame.y.can_show(level.y):
            continue
        y = frame.y(level.y)
        yield svg_tag(
            "path",
            class_="rule",
            d=f"M{format_number(frame.left)} {format_number(sharp_pixel(y))}H{format_number(frame.right)}",
        )
        if not level.label:
            continue
        baseline = y - 5 if y - LABEL - 5 > frame.top else y + LABEL + 3
        yield svg_tag(
            "text", escape_text(level.label), class_="label muted", text_anchor="end", x=frame.right - 4, y=baseline
        )


def sharp_pixel(pixel: float) -> float:
    return int(pixel) + 0.5
