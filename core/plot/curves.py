"""Curves in a frame: lines, bands, dots, and marks for values that cannot be drawn."""

import math
from collections.abc import Iterator
from itertools import groupby, pairwise

from core.plot.chart import Curve, Dots, PointPath
from core.plot.frame import Frame
from core.plot.style import DASHES, PALETTE
from core.plot.svg import escape_text, format_number, svg_tag

NOISY = 0.1  # changes of direction per pixel of width above which a line is drawn thinner
DOTS_APART = 11  # pixels
EDGE = 6  # pixels between a mark and the edge
ARM = 3.5  # half the size of a mark


def draw_curve(frame: Frame, one: Curve) -> Iterator[str]:
    """A line for every run of drawable points; a single point is a dot; a gap has a mark where it begins."""
    lines: list[str] = []
    dots: list[str] = []
    for shown, start, stop in drawable_runs(frame, one):
        if not shown:
            yield draw_gap(frame, one, start, stop)
        elif stop - start == 1:
            dots.append(svg_tag("circle", class_="dot", cx=frame.x(one.xs[start]), cy=frame.y(one.ys[start]), r=3))
        else:
            lines.append("M" + "L".join(_frame_point(frame, one.xs[i], one.ys[i]) for i in range(start, stop)))
    if lines:
        yield svg_tag(
            "path", class_=f"curve{_line_weight(frame, one)}", stroke_dasharray=dash_pattern(one), d="".join(lines)
        )
    yield from dots


def draw_band(frame: Frame, one: Curve) -> Iterator[str]:
    """The interval around a curve, where it is known."""
    if one.band is None:
        return
    edges = list(zip(one.xs, one.band.low, one.band.high, strict=True))
    for known, part in groupby(edges, lambda edge: not math.isnan(edge[1] + edge[2])):
        points = list(part)
        if not known or len(points) < 2:
            continue
        there = [_clamped_point(frame, x, high) for x, _, high in points]
        back = [_clamped_point(frame, x, low) for x, low, _ in reversed(points)]
        yield svg_tag("path", class_="band", d=f"M{'L'.join(there + back)}Z")


def draw_dots(frame: Frame, one: Dots) -> Iterator[str]:
    """Dots on the curve; of dots that would overlap, only the first is drawn."""
    free = frame.left
    for x, y in zip(one.xs, one.ys, strict=True):
        if frame.y.can_show(y) and frame.x(x) >= free:
            yield svg_tag("circle", class_="hollow" if one.hollow else "collected", cx=frame.x(x), cy=frame.y(y), r=4)
            free = frame.x(x) + DOTS_APART


def drawable_runs(frame: Frame, one: Curve) -> Iterator[tuple[bool, int, int]]:
    """(drawable, start, stop) of each run of points that are drawn, or that are missing for the same reason."""
    start = 0
    for why, part in groupby(one.ys, lambda y: "" if frame.y.can_show(y) else missing_reason(y)):
        stop = start + len(list(part))
        yield not why, start, stop
        start = stop


def missing_reason(y: float) -> str:
    """Why a value cannot be drawn."""
    if math.isnan(y):
        return "NaN"
    if math.isinf(y):
        return "infinite" if y > 0 else "-infinite"
    return "too large" if y > 0 else "too small for this axis"


def draw_gap(frame: Frame, one: Curve, start: int, stop: int) -> str:
    """A cross at the bottom for NaN, else an arrow at the edge that the values exceed; a dotted line spans the gap."""
    why = missing_reason(one.ys[start])
    up = why in {"infinite", "too large"}
    x = frame.x(one.xs[start])
    y = frame.top + EDGE if up else frame.bottom - EDGE
    first, last = one.xs[start], one.xs[stop - 1]
    where = f"at {first:g}" if first == last else f"from {first:g} to {last:g}"
    tooltip = svg_tag("title", escape_text(f"{one.label} is {why} {where}"))
    if why == "NaN":
        falling = f"M{_svg_point(x - ARM, y - ARM)}L{_svg_point(x + ARM, y + ARM)}"
        arms = f"{falling}M{_svg_point(x - ARM, y + ARM)}L{_svg_point(x + ARM, y - ARM)}"
        mark = svg_tag("path", class_="gap", d=arms)
    else:
        tip = -ARM if up else ARM
        mark = svg_tag(
            "path",
            class_="beyond",
            d=f"M{_svg_point(x - ARM, y - tip)}H{format_number(x + ARM)}L{_svg_point(x, y + tip)}Z",
        )
    end = frame.x(last)
    far = (
        svg_tag("path", class_="edge", d=f"M{_svg_point(x + 2 * ARM, y)}H{format_number(end)}")
        if end - x > 4 * ARM
        else ""
    )
    return svg_tag("g", tooltip, mark, far)


def dash_pattern(one: Curve) -> str | None:
    """The dash pattern of a curve: after the last colour the palette repeats with the next pattern."""
    return DASHES[one.colour // PALETTE % len(DASHES)]


def colour_class(one: Curve | Dots | PointPath) -> str:
    """The CSS class of its colour."""
    return "plain" if one.colour is None else f"c{one.colour % PALETTE}"


def _line_weight(frame: Frame, one: Curve) -> str:
    if one.faint:
        return " faint"
    rises = [after > before for before, after in pairwise(one.ys)]
    turns = sum(before != after for before, after in pairwise(rises))
    return " noisy" if turns > (frame.right - frame.left) * NOISY else ""


def _frame_point(frame: Frame, x: float, y: float) -> str:
    return _svg_point(frame.x(x), frame.y(y))


def _clamped_point(frame: Frame, x: float, y: float) -> str:
    """A point of a band, clamped to the range of the y axis."""
    return _frame_point(frame, x, min(max(y, frame.y.low), frame.y.high))


def _svg_point(x: float, y: float) -> str:
    return f"{format_number(x)} {format_number(y)}"
