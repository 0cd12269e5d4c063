"""Renders a map as SVG: the function, the paths over it, and their starts and ends."""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from core.plot import axes, legend, text_width
from core.plot.chart import Curve, Dots, Map, PointPath, Style
from core.plot.contour import Contour, Grid, contour_levels, trace_contours
from core.plot.curves import colour_class
from core.plot.frame import Frame
from core.plot.line_clipping import Box, Point, clip_line, contains_point
from core.plot.scale import Scale, y_range
from core.plot.style import HEADING, LABEL
from core.plot.svg import escape_text, format_number, svg_tag
from core.plot.svg_document import ABOVE, BELOW, EDGE, LOWEST, TITLE_ROW, TooLowError, svg_document, y_ticks
from core.plot.ticks import linear_ticks

AXIS_ROW, AXIS_WIDE = 18, 48  # pixels for the name of the y axis, and for its labels
FLAT, LOW, HIGH = 300, 320, 520  # pixels of a frame: over one axis; over two, at least and at most
STEP, MOST_STEPS = 2, 2000  # pixels between the heights along a curve, and how many steps at most
CELL, MOST_CELLS = 4, 200  # the same along each axis of a surface, which takes a fraction of a second to draw
APART = 55  # pixels between two ticks of the x axis, at least
TOGETHER = 0.5  # pixels within which two places are drawn as one
STRAIGHT = 0.15  # pixels by which a line may miss a corner
SLIVER = 8  # points; shorter lines are fragments of a valley narrower than the grid, and are left out
FEW = 300  # places up to which the line between them is readable


def draw_map(found: Map, style: Style) -> str:
    """The picture as an SVG document; the same map and style give the same text.

    Raises:
        TooLowError: the height is too small for the frame.
    """
    head = EDGE + (TITLE_ROW if found.title else 0)
    above, rows = _map_legend(found, style.width, head + LABEL)
    top = head + legend.ROW * rows + ABOVE + AXIS_ROW
    around = top + BELOW + EDGE
    height = around + _natural_height(found, style.width) if style.height is None else style.height
    if height < around + LOWEST:
        raise TooLowError(around + LOWEST)
    frame = _map_frame(found, style.width, float(top), float(height - BELOW - EDGE))
    heading = text_width.fit_text(found.heading, HEADING * 1.05, style.width - 2 * EDGE)
    name = "f(x)" if len(found.window) == 1 else "y"
    parts = [
        svg_tag("text", escape_text(heading), class_="heading", x=EDGE, y=head + LABEL),
        *above,
        *_draw_function(found, frame),
        *axes.draw_axes(frame, "x"),
        svg_tag(
            "text", escape_text(name), class_="label muted", text_anchor="end", x=frame.left - 8, y=top - AXIS_ROW / 2
        ),
        *_draw_paths(found, frame),
    ]
    return svg_document(found.summary, found.title, style, height, parts)


def _map_legend(found: Map, width: int, baseline: float) -> tuple[list[str], int]:
    """The legend and its number of rows: the marks beside the heading, and below it each path if there are several."""
    first = EDGE + text_width.text_width(found.heading, HEADING * 1.05) + legend.APART
    several = [Curve(way.label, (), (), way.colour) for way in found.ways] if len(found.ways) > 1 else []
    shade = None if several or not found.ways else found.ways[0].colour
    ends = [Dots("start", (), (), shade, hollow=True), Dots("end", (), (), shade)]
    marks = legend.place_entries(ends, EDGE, first, width - EDGE)
    ways = legend.place_entries(several, EDGE, EDGE, width - EDGE) if several else []
    below = baseline + legend.ROW * legend.row_count(marks)
    shown = [legend.draw_entry(one, baseline) for one in marks] + [legend.draw_entry(one, below) for one in ways]
    return shown, legend.row_count(marks) + legend.row_count(ways)


def _natural_height(found: Map, width: int) -> int:
    """The height in pixels at which both axes have the same scale, clamped to LOW..HIGH."""
    if len(found.window) == 1:
        return FLAT
    (left, right), (low, high) = found.window
    return round(min(max(width * (high - low) / (right - left), LOW), HIGH))


def _map_frame(found: Map, width: int, top: float, bottom: float) -> Frame:
    left, right = float(EDGE + AXIS_WIDE), float(width - EDGE - 8)
    if len(found.window) == 1:
        x = Scale(*found.window[0], left, right)
        y = Scale(*y_range([height for _, height in _curve_points(found, x)], log=False), bottom, top)
    else:
        across, up = _equal_scales(found.window, (right - left, bottom - top))
        x, y = Scale(*across, left, right), Scale(*up, bottom, top)
    x_ticks = tuple(linear_ticks(x.low, x.high, int((right - left) / APART)))
    return Frame(left, top, right, bottom, x, y, x_ticks, y_ticks(y))


def _equal_scales(window: Sequence[tuple[float, float]], pixels: tuple[float, float]) -> list[tuple[float, float]]:
    """The window, widened to the same scale on both axes: steepest descent is then perpendicular to the contours."""
    unit = max((high - low) / size for (low, high), size in zip(window, pixels, strict=True))
    return [
        ((low + high - unit * size) / 2, (low + high + unit * size) / 2)
        for (low, high), size in zip(window, pixels, strict=True)
    ]


def _draw_function(found: Map, frame: Frame) -> Iterator[str]:
    """The curve of a one-dimensional function, on a grid; the contour lines of a two-dimensional one."""
    if len(found.window) == 1:
        yield from axes.draw_grid(frame)
        line = [(frame.x(x), frame.y(height)) for x, height in _curve_points(found, frame.x)]
        yield svg_tag("path", class_="ground", d=_path_data(_simplify_line(line)))
        return
    xs, ys = (_evenly_spaced(scale, CELL, MOST_CELLS) for scale in (frame.x, frame.y))
    grid = Grid(xs, ys, [[found.surface(x, y) for x in xs] for y in ys])
    lines = trace_contours(grid, contour_levels(grid))
    for place, one in enumerate(lines):
        yield _draw_contour(one, frame, 0.9 - 0.6 * place / len(lines))


def _draw_contour(one: Contour, frame: Frame, opacity: float) -> str:
    lines = [_simplify_line([(frame.x(x), frame.y(y)) for x, y in line]) for line in one.lines if len(line) > SLIVER]
    tooltip = svg_tag("title", escape_text(f"f = {one.level:.4g}"))
    return svg_tag("path", tooltip, class_="contour", stroke_opacity=opacity, d="".join(map(_path_data, lines)))


def _curve_points(found: Map, x: Scale) -> list[Point]:
    return [(each, found.surface(each)) for each in _evenly_spaced(x, STEP, MOST_STEPS)]


def _evenly_spaced(scale: Scale, pixels: int, most: int) -> list[float]:
    """At most `most` steps along an axis, about `pixels` apart; both ends are included."""
    count = min(max(2, round(abs(scale.stop - scale.start) / pixels)), most)
    return [scale.low + (scale.high - scale.low) * place / count for place in range(count + 1)]


def _draw_paths(found: Map, frame: Frame) -> Iterator[str]:
    """From back to front: the path with the most places first, so that it hides no other; then the starts and ends."""
    box = frame.left, frame.top, frame.right, frame.bottom
    ways = [(way, [_pixel_point(found, place, frame) for place in way.places]) for way in found.ways if way.places]
    for way, points in sorted(ways, key=lambda each: -len(each[1])):
        yield _draw_path(way, list(_distinct_points(points)), box, flat=len(found.window) == 1)
    for way, points in ways:
        marks = (_draw_end(points[0], "hollow", box), _draw_end(points[-1], "collected", box))
        yield svg_tag(
            "g", svg_tag("title", escape_text(f"{way.label}, {len(points)} places")), *marks, class_=colour_class(way)
        )


def _draw_path(way: PointPath, points: Sequence[Point | None], box: Box, *, flat: bool) -> str:
    """A dot on every place, joined by a line. Along one axis, a line through many places would hide the curve."""
    many = len(points) > FEW
    line = "" if many and flat else "".join(map(_path_data, _visible_stretches(points, box)))
    places = "".join(f"M{_svg_point(each)}h0" for each in points if each and contains_point(each, box))
    return svg_tag(
        "g",
        svg_tag("title", escape_text(way.label)),
        svg_tag("path", class_="way", d=line) if line else "",
        svg_tag("path", class_="places", d=places),
        class_=f"{colour_class(way)}{' many' if many else ''}",
    )


def _pixel_point(found: Map, place: Sequence[float], frame: Frame) -> Point | None:
    """The place in pixels; None where it is not finite."""
    try:
        x, y = place if len(place) > 1 else (place[0], found.surface(*place))
    except OverflowError:
        return None
    point = frame.x(x), frame.y(y)
    return point if all(map(math.isfinite, point)) else None


def _distinct_points(points: Sequence[Point | None]) -> Iterator[Point | None]:
    """The points without those that coincide with the one before."""
    last: Point | None = None
    for each in points:
        if each is None or last is None or math.dist(each, last) >= TOGETHER:
            yield each
            last = each


def _visible_stretches(points: Sequence[Point | None], box: Box) -> Iterator[list[Point]]:
    for there, part in groupby(points, lambda each: each is not None):
        if there:
            yield from clip_line([each for each in part if each], box)


def _draw_end(point: Point | None, name: str, box: Box) -> str:
    if point is None or not contains_point(point, box):
        return ""
    return svg_tag("circle", class_=name, cx=point[0], cy=point[1], r=5)


def _simplify_line(line: Sequence[Point]) -> list[Point]:
    """The line without corners that are not visible: each is within STRAIGHT pixels of the simplified line."""
    kept: list[Point] = [line[0]]
    between: list[Point] = []
    for corner, after in pairwise(line[1:]):
        between.append(corner)
        if any(_distance_to_line(each, kept[-1], after) > STRAIGHT for each in between):
            kept.append(corner)
            between.clear()
    return [*kept, line[-1]]


def _distance_to_line(point: Point, begin: Point, end: Point) -> float:
    """Pixels between a point and the line through two others."""
    across, down = end[0] - begin[0], end[1] - begin[1]
    area = across * (point[1] - begin[1]) - down * (point[0] - begin[0])
    return abs(area) / length if (length := math.hypot(across, down)) else math.dist(point, begin)


def _path_data(points: Sequence[Point]) -> str:
    return "M" + "L".join(map(_svg_point, points))


def _svg_point(point: Point) -> str:
    return f"{format_number(point[0])} {format_number(point[1])}"
