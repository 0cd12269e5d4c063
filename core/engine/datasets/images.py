"""The inputs of images and of arrays, transformed row by row."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.engine.datasets.standardizer import Standardizer


class ValueTransform:
    """One tensor as float32, standardised if there is a scale: uint8 images stay bytes until a batch is taken."""

    def __init__(self, tensor: str, shape: tuple[int, ...], scale: Standardizer | None, device: torch.device) -> None:
        """`tensor` is the name of the tensor (n, *shape)."""
        self.shape = shape
        self._tensor = tensor
        self._scale = Standardizer(scale.mean.to(device), scale.std.to(device)) if scale else None

    def __call__(self, raw: Mapping[str, Tensor]) -> Tensor:
        values = raw[self._tensor].float()
        return self._scale.apply(values) if self._scale else values
