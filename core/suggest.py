"""The known name closest to an unknown one: "did you mean ...?" in every message about an unknown name."""

import difflib
from collections.abc import Iterable
from typing import Final

LONGEST_WORD: Final = 100  # characters that are compared: the comparison takes time in proportion to the product


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """The hint that names the known name closest to `word`; None if no name is close."""
    close = difflib.get_close_matches(word[:LONGEST_WORD], list(known), n=1)
    return f'did you mean "{close[0]}"?' if close else None
