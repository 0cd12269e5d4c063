"""SVG as text. All text and attributes of a picture are escaped here."""

import unicodedata

_HIDDEN = frozenset(
    {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
)  # control, bidi and other format characters, surrogates …
_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def svg_tag(name: str, *children: str, **attributes: str | float | None) -> str:
    """An element; children are SVG already (`escape_text` makes SVG of text).

    A final underscore of an attribute's name is removed (`class_`), others become hyphens (`stroke_width`). An
    attribute of None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{_format_attribute(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{given}>{''.join(children)}</{name}>" if children else f"<{name}{given}/>"


def escape_text(text: str) -> str:
    """Text as the content of an element. Characters that XML forbids or that change text direction become U+FFFD."""
    seen = (one if unicodedata.category(one) not in _HIDDEN else "\N{REPLACEMENT CHARACTER}" for one in text)
    return "".join(seen).translate(_ESCAPES)


def format_number(value: float) -> str:
    """A coordinate, to a hundredth of a pixel."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _format_attribute(value: str | float) -> str:
    return escape_text(value) if isinstance(value, str) else format_number(value)
