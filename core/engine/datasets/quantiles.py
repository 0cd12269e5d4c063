"""The quantile scale of numbers: a value becomes the normal quantile of its rank in the train split."""

from typing import Final

import torch
from torch import Tensor

from core.engine.datasets.fitting import ReadRows
from core.engine.determinism import seeded_generator

MOST_SAMPLED: Final = 10_000  # train rows that the ranks come from
KNOTS: Final = 1000


def fit_quantiles(read: ReadRows, rows: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Knots and scores, float32 (f, k) each: values ascending, and the normal quantiles of their ranks.

    The ranks are those of at most 10,000 train rows, drawn by `seed`. Equal values have the mean of their scores; a
    column with fewer values than knots repeats its last one.
    """
    chosen = rows
    if len(rows) > MOST_SAMPLED:
        drawn = torch.randperm(len(rows), generator=seeded_generator(seed, "quantiles"))[:MOST_SAMPLED]
        chosen = rows[drawn.sort().values]
    values = read(chosen).T.contiguous().sort(1).values  # (f, n)
    count = min(KNOTS, len(chosen))
    places = torch.linspace(0, len(chosen) - 1, count, dtype=torch.float64).round().long()
    scores = torch.special.ndtri((places.double() + 0.5) / len(chosen))
    pairs = [_merge_equal(column, scores) for column in values[:, places]]
    return torch.stack([knots for knots, _ in pairs]), torch.stack([score for _, score in pairs]).float()


def _merge_equal(knots: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    distinct, group, sizes = torch.unique_consecutive(knots, return_inverse=True, return_counts=True)
    means = torch.zeros(len(distinct), dtype=torch.float64).index_add_(0, group, scores) / sizes
    missing = len(knots) - len(distinct)
    return tuple(torch.cat([each, each[-1:].expand(missing)]) for each in (distinct, means))  # type: ignore[return-value]


def apply_quantiles(values: Tensor, knots: Tensor, scores: Tensor) -> Tensor:
    """Values float32 (b, f) -> scores (b, f), linear between two knots, constant beyond the ends."""
    columns = values.T.contiguous()
    right = torch.searchsorted(knots, columns).clamp(1, max(1, knots.shape[1] - 1)).clamp(max=knots.shape[1] - 1)
    left = (right - 1).clamp(min=0)
    low, high = knots.gather(1, left), knots.gather(1, right)
    gap = high - low
    part = torch.where(gap > 0, (columns - low) / torch.where(gap > 0, gap, 1.0), 0.0).clamp(0.0, 1.0)
    from_score, to_score = scores.gather(1, left), scores.gather(1, right)
    return (from_score + part * (to_score - from_score)).T.contiguous()
