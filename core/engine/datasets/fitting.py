"""Statistics of the train rows of a source that need no copy of it: chunks of rows, added up in their order in double.

The size of a chunk is part of the bits, and follows from the width of a row alone.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Final

import torch
from torch import Tensor

from core.engine.datasets.standardizer import Standardizer

CHUNK_NUMBERS: Final = 2**22  # in a chunk: 32 MB in double
MOST_COLUMNS: Final = 32  # whose medians are searched at once: 16 MB of counts
HALF: Final = 2**16  # values of each half of a float's bits

ReadRows = Callable[[Tensor], Tensor]
"""Rows int64 (b,) -> values (b, …)."""


def iterate_rows(rows: Tensor, numbers: int) -> Iterator[Tensor]:
    """The rows in chunks; `numbers` are those of one row."""
    yield from torch.split(rows, max(1, CHUNK_NUMBERS // max(1, numbers)))


def fit_moments(read: ReadRows, rows: Tensor, numbers: int, *, per_channel: bool) -> Standardizer:
    """Mean and population std over rows (and pixels, per channel), in two passes; a std of 0 becomes 1."""
    shape = read(rows[:1]).shape
    axes = [0, *range(2, len(shape))] if per_channel else [0]
    count = len(rows) * (numbers // shape[1] if per_channel else 1)
    mean = torch.zeros([1 if axis in axes else size for axis, size in enumerate(shape)], dtype=torch.float64)
    for chunk in iterate_rows(rows, numbers):
        mean += read(chunk).double().sum(axes, keepdim=True)
    mean /= count
    squares = torch.zeros_like(mean)
    for chunk in iterate_rows(rows, numbers):
        squares += (read(chunk).double() - mean).square().sum(axes, keepdim=True)
    std = (squares / count).sqrt()
    std = torch.where(std > 0, std, torch.ones_like(std))
    return Standardizer(mean[0].float(), std[0].float())


def fit_pixels(read: ReadRows, rows: Tensor, shape: tuple[int, ...]) -> Standardizer:
    """Mean and population std of uint8 images of a shape (C, H, W) per channel, from exact counts of the 256 values."""
    channels = shape[0]
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for chunk in iterate_rows(rows, prod(shape)):
        some = read(chunk)
        counts += torch.stack([torch.bincount(some[:, each].flatten(), minlength=256) for each in range(channels)])
    values = torch.arange(256, dtype=torch.float64)
    shares = counts.double() / counts.sum(1, keepdim=True)
    mean = (shares * values).sum(1, keepdim=True)
    std = (shares * (values - mean).square()).sum(1, keepdim=True).sqrt()
    std = torch.where(std > 0, std, torch.ones_like(std))
    return Standardizer(mean.float()[:, :, None], std.float()[:, :, None])


@dataclass(frozen=True, slots=True)
class MaskedColumns:
    """Reads float32 columns and where they have a value: rows int64 (b,) -> (b, f), bool (b, f)."""

    read: Callable[[Tensor], tuple[Tensor, Tensor]]
    count: int
    row_numbers: int
    """Of a whole row, which is more than `count` where other columns are read too."""


def fit_means(columns: MaskedColumns, rows: Tensor) -> Tensor:
    """The mean of the values that are not missing, float32 (f,); 0 for a column without any."""
    total = torch.zeros(columns.count, dtype=torch.float64)
    known = torch.zeros(columns.count, dtype=torch.int64)
    for chunk in iterate_rows(rows, columns.row_numbers):
        values, present = columns.read(chunk)
        total += torch.where(present, values, 0).double().sum(0)
        known += present.sum(0)
    return torch.where(known > 0, total / known.clamp(min=1), 0.0).float()


def fit_medians(columns: MaskedColumns, rows: Tensor) -> Tensor:
    """The median of the values that are not missing, float32 (f,); 0 for a column without any.

    Of an even count it is the mean of both middle values. They are found by counts of the upper and then the lower 16
    bits, in two passes: exact, and without a copy of the columns.
    """
    found = [_medians(columns, rows, slice(at, at + MOST_COLUMNS)) for at in range(0, columns.count, MOST_COLUMNS)]
    return torch.cat(found) if found else torch.zeros(0)


def _medians(columns: MaskedColumns, rows: Tensor, block: slice) -> Tensor:
    def chunks() -> Iterator[tuple[Tensor, Tensor]]:
        for chunk in iterate_rows(rows, columns.row_numbers):
            values, present = columns.read(chunk)
            yield ordered_bits(values[:, block]), present[:, block]

    upper = torch.zeros(len(range(*block.indices(columns.count))), HALF, dtype=torch.int64)
    for bits, present in chunks():
        upper += _count_values(bits >> 16, present)
    known = upper.sum(1)
    middles = []
    below = upper.cumsum(1)
    for rank in (((known - 1) // 2).clamp(min=0), known // 2):
        high = torch.searchsorted(below, rank[:, None], right=True).clamp(max=HALF - 1)
        inside = rank[:, None] - (below.gather(1, high) - upper.gather(1, high))
        lower = torch.zeros_like(upper)
        for bits, present in chunks():
            lower += _count_values(bits & (HALF - 1), present & (bits >> 16 == high[:, 0]))
        low = torch.searchsorted(lower.cumsum(1), inside, right=True).clamp(max=HALF - 1)
        middles.append(from_ordered_bits((high << 16 | low)[:, 0]).double())
    return torch.where(known > 0, (middles[0] + middles[1]) / 2, 0.0).float()


def _count_values(values: Tensor, present: Tensor) -> Tensor:
    """How often each of 65,536 values is in each column: int64 (b, f), bool (b, f) -> int64 (f, 65536)."""
    columns = values.shape[1]
    places = values + torch.arange(columns) * HALF
    return torch.bincount(places[present], minlength=columns * HALF).reshape(columns, HALF)


def ordered_bits(values: Tensor) -> Tensor:
    """Whole numbers from 0 to 2^32 - 1 in the order of float32 values, int64; 0 and -0 are equal."""
    bits = (values + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, -bits - 1, bits + 2**31)


def from_ordered_bits(bits: Tensor) -> Tensor:
    """The inverse of ordered_bits()."""
    signed = torch.where(bits < 2**31, -bits - 1, bits - 2**31)
    return signed.to(torch.int32).view(torch.float32)
