"""Tables that are filled tile by tile, and their numbers in JSON."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor


def nan_tensor(*shape: int) -> Tensor:
    """A float64 tensor of NaN: not computed."""
    return torch.full(shape, math.nan, dtype=torch.float64)


def finite_or_none(value: float) -> float | None:
    """The value for JSON: None if it is not finite or was not computed."""
    return value if math.isfinite(value) else None


def move_to_weights_device(found: Mapping[str, Tensor], weights: Tensor) -> dict[str, Tensor]:
    """The tensors of a checkpoint, those of the weights' dtype moved to the weights' device."""
    return {name: each.to(weights.device) if each.dtype == weights.dtype else each for name, each in found.items()}
