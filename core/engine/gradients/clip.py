"""Gradient clipping before the optimizer's update: once per step, in place, on the flat buffer."""

from collections.abc import Callable

import torch
from torch import Tensor

from core.recipe.clipping import ClipGrad

Clip = Callable[[], Tensor | None]  # clips; returns the norm before clipping, () on the device, when it is by norm


def build_clip(spec: ClipGrad | None, gradient: Tensor) -> Clip | None:
    """The clipping of `gradient` (P,), or None if the spec has no clip_grad."""
    if spec is None:
        return None
    return clip_by_norm(gradient, spec.norm) if spec.norm is not None else clip_by_value(gradient, spec.value or 0.0)


def clip_by_norm(gradient: Tensor, most: float) -> Clip:
    """The gradient times min(1, most / (its norm + 1e-6)), torch's own rule, without waiting for the device."""

    def clip() -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(gradient)
        gradient.mul_((most / (norm + 1e-6)).clamp_(max=1.0))
        return norm

    return clip


def clip_by_value(gradient: Tensor, most: float) -> Clip:
    """Clamp every entry to [-most, most]."""

    def clip() -> None:
        gradient.clamp_(-most, most)

    return clip
