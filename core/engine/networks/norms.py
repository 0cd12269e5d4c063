"""The table of normalisation layers, and the properties that the engine reads from it.

A new kind of layer is one line in NORM_LAYERS. A subclass counts as its nearest base class in the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeGuard

from torch import nn

FoldableNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
RunningNorm = FoldableNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


@dataclass(frozen=True, slots=True)
class NormTraits:
    """`mixes_batch`: in train mode, the output for an example depends on the rest of its batch.

    `has_statistics`: the layer may keep running statistics, with which it normalises in evaluation mode.
    """

    mixes_batch: bool = False
    has_statistics: bool = False


BATCH: Final = NormTraits(mixes_batch=True, has_statistics=True)
INSTANCE: Final = NormTraits(has_statistics=True)
BY_EXAMPLE: Final = NormTraits()

NORM_LAYERS: Final[Mapping[type[nn.Module], NormTraits]] = {
    nn.BatchNorm1d: BATCH,
    nn.BatchNorm2d: BATCH,
    nn.BatchNorm3d: BATCH,
    nn.SyncBatchNorm: BATCH,
    nn.InstanceNorm1d: INSTANCE,
    nn.InstanceNorm2d: INSTANCE,
    nn.InstanceNorm3d: INSTANCE,
    nn.LayerNorm: BY_EXAMPLE,
    nn.GroupNorm: BY_EXAMPLE,
    nn.RMSNorm: BY_EXAMPLE,
    nn.LocalResponseNorm: BY_EXAMPLE,
    nn.CrossMapLRN2d: BY_EXAMPLE,
}


def norm_traits(layer: nn.Module) -> NormTraits | None:
    """The traits of the layer, or None if it is no normalisation layer."""
    return next((NORM_LAYERS[each] for each in type(layer).__mro__ if each in NORM_LAYERS), None)


def mixes_batch(module: nn.Module) -> bool:
    """Whether, in train mode, the output for an example depends on the rest of its batch."""
    return any(traits.mixes_batch for layer in module.modules() if (traits := norm_traits(layer)))


def keeps_statistics(layer: nn.Module) -> TypeGuard[RunningNorm]:
    """Whether the layer is a norm that keeps running statistics, and does so now."""
    traits = norm_traits(layer)
    return traits is not None and traits.has_statistics and bool(layer.track_running_stats)


def running_norms(module: nn.Module) -> list[RunningNorm]:
    """The layers whose running statistics belong to the weights: averaged weights need new ones."""
    return [layer for layer in module.modules() if keeps_statistics(layer)]


def is_foldable(layer: nn.Module) -> TypeGuard[FoldableNorm]:
    """Whether in evaluation mode the layer is one scale and one shift per channel, foldable into the layer before it.

    A subclass is not foldable: it may compute something else.
    """
    return NORM_LAYERS.get(type(layer)) is BATCH and keeps_statistics(layer) and bool(layer.affine)
