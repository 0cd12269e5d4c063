"""What all pictures share: margins, a title, ticks, and the SVG document."""

from collections.abc import Sequence

from core.plot import text_width
from core.plot.chart import Style
from core.plot.scale import Scale
from core.plot.style import TITLE, style_sheet
from core.plot.svg import escape_text, svg_tag
from core.plot.ticks import Tick, linear_ticks, log_ticks

EDGE = 16  # pixels around everything
TITLE_ROW, ABOVE, BELOW = 28, 10, 30  # pixels: the row of the title, between a legend and its frame, ticks and x label
X_APART, Y_APART = 90, 34  # pixels between two ticks, at least
LOWEST = 60  # the least height of a panel in pixels


class TooLowError(ValueError):
    """The picture's height is too small for its panels; `least` is the smallest height in pixels that fits."""

    def __init__(self, least: int) -> None:
        """`least` is the smallest height in pixels."""
        super().__init__(f"the height is too small for this picture; at least {least} pixels are needed")
        self.least = least


def svg_document(summary: str, title: str | None, style: Style, height: int, parts: Sequence[str]) -> str:
    """The SVG document: `parts` on a background, under a title if there is one."""
    around = [svg_tag("title", escape_text(summary)), svg_tag("style", style_sheet(style.theme))]
    around.append(svg_tag("rect", class_="background", width=style.width, height=height))
    if title:
        fitted = text_width.fit_text(title, TITLE * 1.05, style.width - 2 * EDGE)
        around.append(svg_tag("text", escape_text(fitted), class_="title", x=EDGE, y=EDGE + TITLE))
    body = "\n".join([*around, *parts])
    return svg_tag(
        "svg",
        f"\n{body}\n",
        xmlns="http://www.w3.org/2000/svg",
        class_="basin",
        role="img",
        aria_label=summary,
        viewBox=f"0 0 {style.width} {height}",
        width=style.width,
        height=height,
    )


def y_ticks(scale: Scale) -> tuple[Tick, ...]:
    """The ticks of a y axis, as many as fit."""
    most = max(2, int((scale.start - scale.stop) / Y_APART))
    make = log_ticks if scale.log else linear_ticks
    return tuple(make(scale.low, scale.high, most))
