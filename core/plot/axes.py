"""Grid, axes and their labels, and what is marked along the x axis."""

from collections.abc import Iterator, Sequence

from core.plot import text_width
from core.plot.chart import Panel, Span
from core.plot.frame import Frame
from core.plot.style import LABEL
from core.plot.svg import number, tag, words

TICK = 4  # pixels
ABOVE = 6  # pixels between an annotation's baseline and the panel


def grid(frame: Frame) -> Iterator[str]:
    """The lines behind everything; each on the middle of a pixel, where it is sharp."""
    places = {kind: [tick.value for tick in frame.y_ticks if bool(tick.label) == kind] for kind in (False, True)}
    for kind, name in ((False, "minor"), (True, "grid")):
        lines = [f"M{number(frame.left)} {number(sharp(frame.y(y)))}H{number(frame.right)}" for y in places[kind]]
        if lines:
            yield tag("path", class_=name, d="".join(lines))


def axes(frame: Frame, x_label: str | None) -> Iterator[str]:
    """The bottom and left lines with ticks and labels; only the lowest panel has an `x_label`, and labels its ticks."""
    left, bottom = sharp(frame.left), sharp(frame.bottom)
    lines = [f"M{number(left)} {number(frame.top)}V{number(bottom)}H{number(frame.right)}"]
    lines += [f"M{number(sharp(frame.x(tick.value)))} {number(bottom)}v{TICK}" for tick in frame.x_ticks]
    yield tag("path", class_="axis", d="".join(lines))
    for tick in frame.y_ticks:
        if tick.label:
            place = {"x": frame.left - 8, "y": frame.y(tick.value) + 4}
            yield tag("text", words(tick.label), class_="label muted", text_anchor="end", **place)
    if x_label is None:
        return
    for tick in frame.x_ticks:
        place = {"x": frame.x(tick.value), "y": frame.bottom + 18}
        yield tag("text", words(tick.label), class_="label muted", text_anchor="middle", **place)
    middle = (frame.left + frame.right) / 2
    yield tag("text", words(x_label), class_="label muted", text_anchor="middle", x=middle, y=frame.bottom + 37)


def shades(frame: Frame, spans: Sequence[Span]) -> Iterator[str]:
    """Stretches of x, behind the grid."""
    for span in spans:
        left, right = frame.x(span.start), frame.x(span.stop)
        size = {"x": left, "y": frame.top, "width": right - left, "height": frame.bottom - frame.top}
        yield tag("rect", class_="shade", **size)


def rules(frame: Frame, panel: Panel) -> Iterator[str]:
    """Dashed lines at x, and the names of spans and rules above the panel, as far as they do not overlap."""
    for rule in panel.rules:
        yield tag(
            "path", class_="rule", d=f"M{number(sharp(frame.x(rule.x)))} {number(frame.top)}V{number(frame.bottom)}"
        )
    free = frame.left
    named = [*((one.start, one.label) for one in panel.spans), *((one.x, one.label) for one in panel.rules)]
    for place, label in sorted(named):
        wide = text_width.width(label, LABEL)
        start = max(frame.left, min(frame.x(place), frame.right - wide))
        if start < free:
            continue
        yield tag("text", words(label), class_="label muted", x=start, y=frame.top - ABOVE)
        free = start + wide + 8


def levels(frame: Frame, panel: Panel) -> Iterator[str]:
    """Dashed lines at y, each with its name, if it has one; below the line where there is no room above it."""
    for level in panel.levels:
        if not frame.y.shows(level.y):
            continue
        y = frame.y(level.y)
        yield tag("path", class_="rule", d=f"M{number(frame.left)} {number(sharp(y))}H{number(frame.right)}")
        if not level.label:
            continue
        baseline = y - 5 if y - LABEL - 5 > frame.top else y + LABEL + 3
        yield tag("text", words(level.label), class_="label muted", text_anchor="end", x=frame.right - 4, y=baseline)


def sharp(pixel: float) -> float:
    return int(pixel) + 0.5
