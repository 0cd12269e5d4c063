"""Mixtures of two images; the partner is another example of the epoch, see prepared_split.partner_indices."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.datasets.draws import Draws
from core.engine.datasets.moves import rectangle
from core.recipe.data.augment import CutMix, Mixup

Key = tuple[str | int, ...]
KNOTS = 4096


@dataclass(frozen=True, slots=True)
class Mixer:
    """`mix` takes pixels, those of the partners, draws and a key; it gives pixels and the share of the own target.

    Shares are float32 (b,).
    """

    mix: Callable[[Tensor, Tensor, Draws, Key], tuple[Tensor, Tensor]]


def build_mixer(operation: Mixup | CutMix) -> Mixer:
    """The mixture of an operation."""
    quantile = BetaQuantile(operation.alpha)

    def mixup(pixels: Tensor, others: Tensor, draws: Draws, key: Key) -> tuple[Tensor, Tensor]:
        share = quantile(draws.uniform(*key, "share")).float()
        weights = share[:, None, None, None]
        return weights * pixels.float() + (1 - weights) * others.float(), share

    def cutmix(pixels: Tensor, others: Tensor, draws: Draws, key: Key) -> tuple[Tensor, Tensor]:
        chosen = draws.uniform(*key, "cut") < (operation.share if isinstance(operation, CutMix) else 1.0)
        bounds = cut_bounds(pixels, quantile(draws.uniform(*key, "share")), draws, key)
        top, bottom, left, right = bounds
        inside = rectangle(pixels, *bounds) & chosen[:, None, None, None]
        area = torch.where(chosen, (bottom - top) * (right - left), 0)
        share = (1 - area.double() / (pixels.shape[2] * pixels.shape[3])).float()
        if pixels.dtype != others.dtype:
            pixels, others = pixels.float(), others.float()
        return torch.where(inside, others, pixels), share

    return Mixer(cutmix if isinstance(operation, CutMix) else mixup)


def cut_bounds(pixels: Tensor, share: Tensor, draws: Draws, key: Key) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, bottom, left and right of a rectangle of the area 1 - share (b,), cut off at the borders; int64 (b,) each.

    Its centre is uniform over the image, its sides have the ratio of the image's (Yun et al. 2019, section 3).
    """
    bounds: list[Tensor] = []
    for size, name in ((pixels.shape[2], "row"), (pixels.shape[3], "column")):
        side = (size * (1 - share).sqrt()).long()
        first = (draws.uniform(*key, name) * size).long() - side // 2
        bounds += [first.clamp(0, size), (first + side).clamp(0, size)]
    top, bottom, left, right = bounds
    return top, bottom, left, right


class BetaQuantile:
    """The inverse distribution function of Beta(alpha, alpha), by a table.

    With g = min(alpha, 1) and s = x^g the density of s is bounded: x^(alpha - g) (1 - x)^(alpha - 1), up to a factor.
    The table has its integral over s for x up to 1/2, by trapezoids; the other half follows by symmetry. A look-up only
    adds and multiplies, so that its bits do not depend on the batch: a vectorised power may differ from a single one.
    """

    def __init__(self, alpha: float) -> None:
        power = min(alpha, 1.0)
        self._x = torch.linspace(0, 0.5**power, KNOTS + 1, dtype=torch.float64) ** (1 / power)
        density = self._x ** (alpha - power) * (1 - self._x) ** (alpha - 1)
        total = torch.cumulative_trapezoid(density)
        self._levels = torch.cat([torch.zeros(1, dtype=torch.float64), total / (2 * total[-1])])

    def __call__(self, levels: Tensor) -> Tensor:
        """Levels (b,) in [0, 1) -> x, float64 (b,)."""
        known, x = self._levels.to(levels.device), self._x.to(levels.device)
        low = torch.minimum(levels, 1 - levels)
        right = torch.searchsorted(known, low).clamp(1, KNOTS)
        left = right - 1
        gap = (known[right] - known[left]).clamp(min=torch.finfo(torch.float64).tiny)
        part = ((low - known[left]) / gap).clamp(0, 1)
        found = x[left] + part * (x[right] - x[left])
        return torch.where(levels <= 0.5, found, 1 - found)
