"""Augmentation of train images: a pure function of (seed, epoch, row), whatever the batch and its order.

Pixels are uint8, or float32 from 0 to 255 after a change of values; they are standardised afterwards. Sums over an
image are exact, so that no bit depends on how torch adds up.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.datasets import colours, moves
from core.engine.datasets.draws import Draws
from core.engine.datasets.mixing import Mixer, build_mixer
from core.recipe.data.augment import (
    Augmentation as Operation,
)
from core.recipe.data.augment import (
    Brightness,
    Contrast,
    Crop,
    CutMix,
    Erase,
    HorizontalFlip,
    Mixup,
    RandAugment,
    Rotate90,
    Saturation,
    VerticalFlip,
)

Raw = dict[str, Tensor]
Key = tuple[str | int, ...]
Example = tuple[Raw, Tensor, Draws]
"""The tensors of some examples, their targets int64 (b,), and their draws."""
Change = Callable[[Tensor, Draws, Key], Tensor]
"""Pixels (b, C, H, W), draws, and the key of the operation among all draws -> pixels."""

STRONGEST: Final = 30  # magnitude of RandAugment


class Augmentation:
    """The operations of a job, in their order."""

    def __init__(self, operations: Sequence[Operation], classes: int) -> None:
        """`classes` is the number of classes: mixtures have a probability for each."""
        self._classes = classes
        self._steps: list[Change | Mixer] = [
            build_mixer(each) if isinstance(each, Mixup | CutMix) else build_change(each) for each in operations
        ]
        self.mixes = any(isinstance(each, Mixer) for each in self._steps)

    def change_each(self, raw: Mapping[str, Tensor], draws: Draws) -> Raw:
        """Every operation but mixtures, on the tensor `pixels`."""
        pixels = raw["pixels"]
        for place, step in enumerate(self._steps):
            if not isinstance(step, Mixer):
                pixels = step(pixels, draws, (place,))
        return {**raw, "pixels": pixels}

    def change_and_mix(self, own: Example, partner: Example) -> tuple[Raw, Tensor]:
        """Every operation. A partner is changed by its own draws until it is mixed in.

        Targets become class probabilities, float32 (b, classes).
        """
        (raw, targets, draws), (other_raw, other_targets, other_draws) = own, partner
        pixels, others = raw["pixels"], other_raw["pixels"]
        chances, other_chances = (functional.one_hot(each, self._classes).float() for each in (targets, other_targets))
        for place, step in enumerate(self._steps):
            if isinstance(step, Mixer):
                pixels, share = step.mix(pixels, others, draws, (place,))
                chances = share[:, None] * chances + (1 - share[:, None]) * other_chances
            else:
                pixels, others = step(pixels, draws, (place,)), step(others, other_draws, (place,))
        return {**raw, "pixels": pixels}, chances


def build_change(operation: Operation) -> Change:
    """The function of an operation on single images."""
    return CHANGES[type(operation)](operation)


CHANGES: Final[dict[type, Callable[[Any], Change]]] = {
    Crop: lambda spec: partial(moves.crop, padding=spec.padding),
    HorizontalFlip: lambda _: partial(moves.flip, axis=3),
    VerticalFlip: lambda _: partial(moves.flip, axis=2),
    Rotate90: lambda _: moves.rotate90,
    Erase: lambda spec: partial(moves.erase, size=spec.size, share=spec.share),
    Brightness: lambda spec: partial(colours.brightness, strength=spec.strength),
    Contrast: lambda spec: partial(colours.contrast, strength=spec.strength),
    Saturation: lambda spec: partial(colours.saturation, strength=spec.strength),
    RandAugment: lambda spec: partial(rand_augment, spec=spec),
}


def rand_augment(pixels: Tensor, draws: Draws, key: Key, spec: RandAugment) -> Tensor:
    """`operations` times one of the table, drawn for each image: nothing, a move, a black rectangle, or a colour.

    With r = magnitude / 30 a move is a crop padded by a quarter r of the shorter side, a rectangle has half r of each
    side, and colours have the strength 0.9 r. Saturation is in the table of images with three channels.
    """
    ratio = spec.magnitude / STRONGEST
    if ratio == 0:
        return pixels
    padding = int(ratio * min(pixels.shape[2:]) / 4 + 0.5)
    table: list[Change] = [
        partial(moves.crop, padding=padding),
        partial(moves.erase, size=ratio / 2, share=1.0),
        partial(colours.brightness, strength=0.9 * ratio),
        partial(colours.contrast, strength=0.9 * ratio),
    ]
    if pixels.shape[1] == colours.COLOURS:
        table.append(partial(colours.saturation, strength=0.9 * ratio))
    pixels = pixels.float()
    for turn in range(spec.operations):
        chosen = draws.integers(len(table), *key, turn, "choice")[:, None, None, None]  # the last choice is nothing
        before = pixels
        for number, change in enumerate(table):
            pixels = torch.where(chosen == number, change(before, draws, (*key, turn, number)), pixels)
    return pixels
