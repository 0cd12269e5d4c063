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

CHUNK_NUMBERS: Final = 2**20  # in a chunk: 8 MB in double
MOST_COLUMNS: Final = 256  # whose medians are searched at once: 16 MB of counts
DIGITS: Final = ((20, 12), (10, 10), (0, 10))  # shift and width of the groups of a float's 32 bits

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
    """Float32 columns and where they have a value; `row_numbers` are those of a whole row of the source."""

    read: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """Rows int64 (b,) and columns int64 (f,) -> values (b, f), bool (b, f)."""
    row_numbers: int

    def chunks(self, rows: Tensor, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Values and their presence, chunk by chunk."""
        for chunk in iterate_rows(rows, self.row_numbers):
            yield self.read(chunk, columns)


def fit_means(table: MaskedColumns, rows: Tensor, columns: Tensor) -> Tensor:
    """The mean of the values that are not missing, float32 (f,); 0 for a column without any."""
    total = torch.zeros(len(columns), dtype=torch.float64)
    known = torch.zeros(len(columns), dtype=torch.int64)
    for values, present in table.chunks(rows, columns):
        total += torch.where(present, values, 0).double().sum(0)
        known += present.sum(0)
    return torch.where(known > 0, total / known.clamp(min=1), 0.0).float()


def fit_medians(table: MaskedColumns, rows: Tensor, columns: Tensor) -> Tensor:
    """The median of the values that are not missing, float32 (f,); 0 for a column without any.

    Of an even count it is the mean of both middle values. They are exact, and need no copy of the columns: three passes
    count the values by one group of their bits after the other.
    """
    return torch.cat([_medians(table, rows, block) for block in torch.split(columns, MOST_COLUMNS)])


def _medians(table: MaskedColumns, rows: Tensor, columns: Tensor) -> Tensor:
    many = len(columns)
    known = torch.zeros(many, dtype=torch.int64)
    found = torch.zeros(2, many, dtype=torch.int64)  # the leading bits of the two middle values
    rank: Tensor | None = None  # of each among the values that have these leading bits
    for shift, width in DIGITS:
        counts = torch.zeros(2, many, 2**width, dtype=torch.int64)
        equal = torch.equal(found[0], found[1])
        for values, present in table.chunks(rows, columns):
            bits = ordered_bits(values)
            for middle in range(1 if equal else 2):
                mine = present & (bits >> (shift + width) == found[middle])
                counts[middle] += _count_digits(bits >> shift & (2**width - 1), mine, 2**width)
        if equal:
            counts[1] = counts[0]
        if rank is None:
            known = counts[0].sum(1)
            rank = torch.stack([((known - 1) // 2).clamp(min=0), known // 2])
        below = counts.cumsum(2)
        digit = torch.searchsorted(below, rank[:, :, None], right=True).clamp(max=2**width - 1)
        rank = rank - (below - counts).gather(2, digit)[:, :, 0]
        found = found << width | digit[:, :, 0]
    middles = from_ordered_bits(found).double()
    return torch.where(known > 0, (middles[0] + middles[1]) / 2, 0.0).float()


def _count_digits(digits: Tensor, mine: Tensor, base: int) -> Tensor:
    """How often each digit is in each column: int64 (b, f), bool (b, f) -> int64 (f, base)."""
    columns = digits.shape[1]
    places = digits + torch.arange(columns) * base
    return torch.bincount(places[mine], minlength=columns * base).reshape(columns, base)


def ordered_bits(values: Tensor) -> Tensor:
    """Whole numbers from 0 to 2^32 - 1 in the order of float32 values, int64; 0 and -0 are equal."""
    bits = (values + 0.0).view(torch.int32).long()
    return torch.where(bits < 0, -bits - 1, bits + 2**31)


def from_ordered_bits(bits: Tensor) -> Tensor:
    """The inverse of ordered_bits()."""
    signed = torch.where(bits < 2**31, -bits - 1, bits - 2**31)
    return signed.to(torch.int32).view(torch.float32)
