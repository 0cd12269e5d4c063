"""Renders a chart as SVG: the layout of the panels, and their content."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from core.plot import axes, curves, legend, text_width
from core.plot.chart import Chart, Map, Panel, Style
from core.plot.frame import Frame
from core.plot.function_map import draw_map
from core.plot.scale import Scale, is_log, x_range, y_range
from core.plot.style import HEADING, LABEL
from core.plot.svg import escape_text, svg_tag
from core.plot.svg_document import ABOVE, BELOW, EDGE, LOWEST, TITLE_ROW, X_APART, TooLowError, svg_document, y_ticks
from core.plot.ticks import linear_ticks

ANNOTATIONS, BETWEEN = 18, 14  # pixels
ASIDE = 0.04  # margin, as a share of the x axis
ALONE, SEVERAL = 260, 150  # natural height of a panel in pixels: a single one, and one of several


@dataclass(frozen=True, slots=True)
class _PanelLayout:
    """A panel with its legend placed; `head` is the height in pixels of what is above its frame."""

    panel: Panel
    entries: tuple[legend.LegendEntry, ...]
    head: int


def draw_picture(found: Chart | Map, style: Style) -> str:
    """The picture as an SVG document; the same chart and style give the same text.

    Raises:
        TooLowError: the height is too small for the panels.
    """
    return draw_map(found, style) if isinstance(found, Map) else _draw_chart(found, style)


def _draw_chart(chart: Chart, style: Style) -> str:
    stages = [_panel_layout(chart, panel, number, style.width) for number, panel in enumerate(chart.panels)]
    top = EDGE + (TITLE_ROW if chart.title else 0)
    around = top + sum(stage.head for stage in stages) + BETWEEN * (len(stages) - 1) + BELOW + EDGE
    natural = ALONE if len(stages) == 1 else SEVERAL
    height = around + natural * len(stages) if style.height is None else style.height
    each = (height - around) / len(stages)
    if each < LOWEST:
        raise TooLowError(around + LOWEST * len(stages))
    parts: list[str] = []
    for stage, frame in zip(stages, _panel_frames(chart, stages, style.width, top, each), strict=True):
        last = stage is stages[-1]
        parts.extend(_draw_panel(stage, frame, chart.x_label if last else None))
    return svg_document(chart.summary, chart.title, style, height, parts)


def _panel_layout(chart: Chart, panel: Panel, number: int, width: int) -> _PanelLayout:
    """The heading with the legend beside it, in as many rows as needed."""
    first = EDGE + text_width.text_width(panel.title, HEADING * 1.05) + legend.APART if panel.title else EDGE
    found = [] if chart.one_legend and number else legend.legend_entries(panel)
    own = found if len(found) > 1 or (found and found[0].label != panel.title) else []
    entries = legend.place_entries(own, EDGE, first, width - EDGE)
    head = legend.ROW * max(1, legend.row_count(entries)) + ABOVE
    return _PanelLayout(panel, tuple(entries), head + (ANNOTATIONS if panel.spans or panel.rules else 0))


def _panel_frames(chart: Chart, stages: Sequence[_PanelLayout], width: int, top: int, each: float) -> list[Frame]:
    """The frame of every panel. All frames share the left edge, which the widest y label determines."""
    heights = []
    for stage in stages:
        top += stage.head
        heights.append((float(top), top + each))
        top += round(each) + BETWEEN
    low, high = x_range([x for stage in stages for x in _panel_xs(stage.panel)])
    if not any(stage.panel.curves for stage in stages):  # a panel of dots alone has a margin
        low, high = low - (high - low) * ASIDE, high + (high - low) * ASIDE
    scales = [_y_scale(stage.panel, *pixels) for stage, pixels in zip(stages, heights, strict=True)]
    ticks = [y_ticks(scale) for scale in scales]
    widest = max((text_width.text_width(tick.label, LABEL) for tick in chain(*ticks)), default=0.0)
    left, right = float(round(EDGE + widest + 8)), float(width - EDGE - 8)
    x = Scale(low, high, left, right)
    x_ticks = tuple(linear_ticks(low, high, int((right - left) / X_APART), whole=chart.x_whole))
    return [
        Frame(left, upper, right, lower, x, scale, x_ticks, own)
        for (upper, lower), scale, own in zip(heights, scales, ticks, strict=True)
    ]


def _panel_xs(panel: Panel) -> Iterator[float]:
    for curve in panel.curves:
        yield from curve.xs
    for span in panel.spans:
        yield from (span.start, span.stop)
    for dots in panel.dots:
        yield from dots.xs
    yield from (rule.x for rule in panel.rules)


def _y_scale(panel: Panel, top: float, bottom: float) -> Scale:
    limits = Scale(0, 1, 0, 1)  # a linear axis: its range decides which values can be drawn
    drawn = [*(curve.ys for curve in panel.curves), *(dots.ys for dots in panel.dots), [one.y for one in panel.levels]]
    values = [y for ys in drawn for y in ys if limits.can_show(y)]
    log = is_log(values, panel.y)
    if values:
        low, high = min(values), max(values)
        air = (high - low) / 2  # the most that a band may widen the axis on either side; the rest is clipped
        bands = [curve.band for curve in panel.curves if curve.band]
        edges = [y for band in bands for y in (*(() if log else band.low), *band.high) if limits.can_show(y)]
        values += [min(max(y, low - air), high + air) for y in edges]
    low, high = y_range(values, log=log, most=panel.most)
    return Scale(low, high, bottom, top, log)


def _draw_panel(stage: _PanelLayout, frame: Frame, x_label: str | None) -> Iterator[str]:
    """The panel's elements from back to front; sparse curves are last, so that no noisy curve hides them."""
    panel = stage.panel
    above = frame.top - stage.head + LABEL
    if panel.title:
        title = text_width.fit_text(panel.title, HEADING * 1.05, frame.right - EDGE)
        yield svg_tag("text", escape_text(title), class_="heading", x=EDGE, y=above)
    yield from (legend.draw_entry(one, above) for one in stage.entries)
    yield from axes.draw_shades(frame, panel.spans)
    yield from axes.draw_grid(frame)
    yield from axes.draw_axes(frame, x_label)
    yield from axes.draw_rules(frame, panel)
    yield from axes.draw_levels(frame, panel)
    for curve in sorted(panel.curves, key=lambda one: (not one.faint, -len(one.xs))):
        if curve.xs:
            drawn = chain(curves.draw_band(frame, curve), curves.draw_curve(frame, curve))
            yield svg_tag("g", svg_tag("title", escape_text(curve.label)), *drawn, class_=curves.colour_class(curve))
    for dots in panel.dots:
        yield svg_tag(
            "g",
            svg_tag("title", escape_text(dots.label)),
            *curves.draw_dots(frame, dots),
            class_=curves.colour_class(dots),
        )
    if not any(curve.xs for curve in panel.curves) and not any(dots.xs for dots in panel.dots):
        middle = {"x": (frame.left + frame.right) / 2, "y": (frame.top + frame.bottom) / 2}
        yield svg_tag("text", escape_text("no points yet"), class_="label muted", text_anchor="middle", **middle)
