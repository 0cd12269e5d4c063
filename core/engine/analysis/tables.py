"""Tables that are filled in tile by tile, and the plain numbers that are said of them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def nan_tensor(*shape: int) -> Tensor:
    """Float64 numbers that have not been computed."""
    return torch.full(shape, math.nan, dtype=torch.float64)


def finite_or_none(value: float) -> float | None:
    """As JSON has it: None where it is not finite, or was not computed."""
    return value if math.isfinite(value) else None


def move_to_weights_device(found: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """What a checkpoint holds, vectors of the weights' own kind back on their device."""
    return {name: each.to(weights.device) if each.dtype == weights.dtype else each for name, each in found.items()}
