"""Numbers that JSON cannot express: NaN and the infinities are strings wherever numbers are written as JSON."""

import math
from typing import Any, Final

WORDS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode_non_finite(value: Any) -> Any:
    """The value with NaN and the infinities as the strings of the HTTP contract; tuples become lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(name): encode_non_finite(each) for name, each in value.items()}
    return [encode_non_finite(each) for each in value] if isinstance(value, list | tuple) else value


def decode_non_finite(value: Any) -> Any:
    """The inverse of `encode_non_finite`: those strings become numbers."""
    if isinstance(value, str):
        return WORDS.get(value, value)
    if isinstance(value, dict):
        return {name: decode_non_finite(each) for name, each in value.items()}
    return [decode_non_finite(each) for each in value] if isinstance(value, list) else value
