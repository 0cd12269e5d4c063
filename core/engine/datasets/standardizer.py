"""Standardisation: x -> (x - mean) / std, fitted on the train split."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Standardizer:
    """x -> (x - mean) / std, fitted on the train split; float32, broadcastable against one example."""

    mean: Tensor
    std: Tensor

    def apply(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


def fit_standardizer(values: Tensor, *, per_channel: bool) -> Standardizer:
    """Mean and population std over examples (and pixels, per channel), computed in double; a std of 0 becomes 1."""
    axes = [0, *range(2, values.ndim)] if per_channel else [0]
    doubles = values.double()
    mean = doubles.mean(axes, keepdim=True)
    std = (doubles - mean).square().mean(axes, keepdim=True).sqrt()
    std = torch.where(std > 0, std, torch.ones_like(std))
    return Standardizer(mean[0].float(), std[0].float())


def name_standardizers(inputs: Standardizer | None, targets: Standardizer | None) -> dict[str, Tensor]:
    """The tensors stored with weights: standardize.mean and .std, for regression also standardize.target_*."""
    scales = {"standardize.": inputs, "standardize.target_": targets}
    found = {prefix: scale for prefix, scale in scales.items() if scale}
    return {f"{prefix}{name}": getattr(scale, name) for prefix, scale in found.items() for name in ("mean", "std")}
