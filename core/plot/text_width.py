"""The width of text without a font: an estimate, rather too wide than too narrow."""

import unicodedata

_NARROW = frozenset("iIjl.,:;'|!()[]{}ftr/\\ -")
_WIDE = frozenset("mwMW@%&")


def text_width(text: str, size: float) -> float:
    """An upper estimate of the text's width in pixels, in a common sans-serif font of this size."""
    return size * sum(_character_width(one) for one in text)


def fit_text(text: str, size: float, most: float) -> str:
    """The text, or its beginning with an ellipsis, in at most `most` pixels."""
    if text_width(text, size) <= most:
        return text
    room = most - text_width("…", size)
    kept = 0
    for kept, one in enumerate(text):  # noqa: B007 - the place where it stopped is what we want
        room -= size * _character_width(one)
        if room < 0:
            break
    return text[:kept].rstrip() + "…"


def _character_width(one: str) -> float:
    """The width of a character, as a share of the font's size."""
    if unicodedata.combining(one):
        return 0.0
    if one in _NARROW:
        return 0.4
    if one in _WIDE or unicodedata.east_asian_width(one) in "WF":
        return 1.0
    return 0.72 if one.isupper() else 0.63
