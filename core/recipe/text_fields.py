"""Text from users: names and labels, which are shown in lists, logs and terminals."""

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, bidi and other format characters, surrogates, unassigned


def _check_visible(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in HIDDEN:
            raise PydanticCustomError(
                "hidden_character",
                "no control, format or surrogate characters (found U+{code})",
                {"code": f"{ord(character):04X}"},
            )
    return text


Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_visible)]
Label = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_check_visible)]
Note = Annotated[str, Field(max_length=512), AfterValidator(_check_visible)]
