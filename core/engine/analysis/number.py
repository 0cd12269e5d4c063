"""Numbers as JSON has them."""

import math


def number(value: float) -> float | None:
    """None where it is not finite, or was not computed."""
    return value if math.isfinite(value) else None
