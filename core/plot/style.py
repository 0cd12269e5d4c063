"""The colours of the light and the dark theme, and the style sheet of a picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from core.plot.chart import Theme

DASHES = (None, "7 3", "2 3")
"""The dash patterns of curves, in the first, second and third pass through the palette."""

TITLE, HEADING, LABEL = 15.0, 13.0, 12.0
"""Sizes of text, in pixels."""


@dataclass(frozen=True, slots=True)
class Colours:
    """The colours of a theme. Curves contrast with the background, and with each other for colour-blind users too."""

    background: str
    text: str
    muted: str
    axis: str
    grid: str
    minor: str
    shade: str
    curves: tuple[str, ...]


COLOURS: Final[Mapping[str, Colours]] = MappingProxyType(
    {
        "light": Colours(
            background="#ffffff",
            text="#1f2328",
            muted="#59636e",
            axis="#8c959f",
            grid="#dde2e7",
            minor="#f0f2f5",
            shade="#eef3fa",
            curves=("#0072b2", "#d55e00", "#009e73", "#db4dff", "#6a21d9", "#56592d", "#733958"),
        ),
        "dark": Colours(
            background="#0d1117",
            text="#e6edf3",
            muted="#9aa4af",
            axis="#6e7681",
            grid="#2a313a",
            minor="#1b2129",
            shade="#17202c",
            curves=("#4c9ffe", "#ff8a3d", "#38d9a9", "#fab2ff", "#f2e524", "#f2495f", "#9574a6"),
        ),
    }
)
PALETTE = len(COLOURS["light"].curves)

# No CSS custom properties: not every renderer of SVG supports them. Every rule is scoped to .basin, because a picture
# that is embedded in a page shares its style sheet with the page.
_SHAPES = f"""
.basin text {{ font-family: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }}
.basin .title {{ font-size: {TITLE:g}px; font-weight: 600; }}
.basin .heading {{ font-size: {HEADING:g}px; font-weight: 600; }}
.basin .label {{ font-size: {LABEL:g}px; }}
.basin .axis, .basin .grid, .basin .minor {{ fill: none; stroke-width: 1; }}
.basin .rule {{ fill: none; stroke-width: 1.25; stroke-dasharray: 4 3; }}
.basin .curve {{ fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }}
.basin .noisy {{ stroke-width: 1.2; stroke-opacity: 0.85; }}
.basin .faint {{ stroke-width: 1; stroke-opacity: 0.45; }}
.basin .edge {{ fill: none; stroke: currentColor; stroke-width: 1.5; stroke-dasharray: 1 3; }}
.basin .gap {{ fill: none; stroke: currentColor; stroke-width: 2; stroke-linecap: round; }}
.basin .dot, .basin .beyond {{ fill: currentColor; stroke: none; }}
.basin .collected {{ fill: currentColor; stroke-width: 1.5; }}
.basin .hollow {{ stroke: currentColor; stroke-width: 2; }}
.basin .band {{ fill: currentColor; fill-opacity: 0.18; stroke: none; }}
.basin .contour {{ fill: none; stroke-width: 1; stroke-linejoin: round; }}
.basin .ground {{ fill: none; stroke-width: 1.5; stroke-linejoin: round; }}
.basin .way {{ fill: none; stroke: currentColor; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round; }}
.basin .places {{ fill: none; stroke: currentColor; stroke-width: 4; stroke-linecap: round; }}
.basin .many .way {{ stroke-width: 1; stroke-opacity: 0.5; }}
.basin .many .places {{ stroke-width: 2.5; }}
"""


def style_sheet(theme: Theme) -> str:
    """The style sheet; `auto` follows the reader's preferred colour scheme, and is light by default."""
    if theme != "auto":
        return _SHAPES + _colour_rules(COLOURS[theme])
    light, dark = _colour_rules(COLOURS["light"]), _colour_rules(COLOURS["dark"])
    return f"{_SHAPES}{light}@media (prefers-color-scheme: dark) {{\n{dark}}}\n"


def _colour_rules(colours: Colours) -> str:
    own = "".join(f".basin .c{number} {{ color: {colour}; }}\n" for number, colour in enumerate(colours.curves))
    return (
        f".basin .background {{ fill: {colours.background}; }}\n"
        f".basin .title, .basin .heading, .basin .label {{ fill: {colours.text}; }}\n"
        f".basin .muted {{ fill: {colours.muted}; }}\n"
        f".basin .axis {{ stroke: {colours.axis}; }}\n"
        f".basin .grid {{ stroke: {colours.grid}; }}\n"
        f".basin .minor {{ stroke: {colours.minor}; }}\n"
        f".basin .shade {{ fill: {colours.shade}; }}\n"
        f".basin .rule {{ stroke: {colours.muted}; }}\n"
        f".basin .contour, .basin .ground {{ stroke: {colours.axis}; }}\n"
        f".basin .plain {{ color: {colours.text}; }}\n"
        f".basin .hollow {{ fill: {colours.background}; }}\n"
        f".basin .collected {{ stroke: {colours.background}; }}\n{own}"
    )
