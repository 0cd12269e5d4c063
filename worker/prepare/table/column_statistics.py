"""Statistics of one column over all rows. Nothing in them depends on how the rows are cut into blocks.

Values are gathered into chunks of a fixed number, and each chunk is summed at once: so the order of additions, and with
it every bit of a mean, is the same whatever the sizes of the blocks.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from core.recipe.data.manifest import MOST_CATEGORIES, MOST_VALUES
from worker.prepare.table.cells import Numbers

CHUNK_VALUES: Final = 1 << 16
MOST_CHUNK_VALUES: Final = 1 << 22  # of all columns together: 32 MiB
KEPT_VALUES: Final = 1 << 20
MOST_KEPT_VALUES: Final = 1 << 23  # of all columns together: 64 MiB
BINS: Final = 20
FINE_BINS: Final = 200  # in each of the bins; medians of more than KEPT_VALUES rows are this exact
LONGEST_CATEGORY: Final = 200  # characters
EXACT_FLOAT32: Final = 1 << 24
EXACT_FLOAT64: Final = 1 << 53
_DENSE: Final = 1 << 16


class NumberStatistics:
    """Count, minimum, maximum, mean and standard deviation (of the population) of finite numbers; the first pass."""

    def __init__(self, columns: int) -> None:
        """`columns` is the number of columns that share the memory."""
        self._chunk = np.empty(max(64, min(CHUNK_VALUES, MOST_CHUNK_VALUES // columns)))
        self._most_kept = max(64, min(KEPT_VALUES, MOST_KEPT_VALUES // columns))
        self._filled = 0
        self._kept: list[Numbers] | None = []
        self._counts: dict[int, int] | None = {}
        self._squares = 0.0
        self.count = 0
        self.whole = True
        self.minimum = np.inf
        self.maximum = -np.inf
        self.mean = 0.0

    def add(self, values: Numbers) -> None:
        """Values without missing ones."""
        while len(values):
            room = len(self._chunk) - self._filled
            part, values = values[:room], values[room:]
            self._chunk[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._chunk):
                self._add_chunk(self._chunk)
                self._filled = 0

    def finish(self) -> None:
        """After the last `add`."""
        if self._filled:
            self._add_chunk(self._chunk[: self._filled])
        self._filled = 0
        self._chunk = np.empty(0)

    @property
    def std(self) -> float:
        return float(np.sqrt(self._squares / self.count))

    @property
    def values(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """The distinct values, ascending, and their counts; None: not all are whole, or there are too many."""
        if self._counts is None:
            return None
        values = sorted(self._counts)
        return tuple(values), tuple(self._counts[value] for value in values)

    def median(self) -> float | None:
        """Exact, or None where there are too many values for that."""
        if self._counts is not None:
            values = sorted(self._counts)
            ends = np.cumsum([self._counts[value] for value in values])
            found = np.searchsorted(ends, [(self.count - 1) // 2, self.count // 2], side="right")
            return float(values[found[0]] + values[found[1]]) / 2
        if self._kept is None:
            return None
        middles = [(self.count - 1) // 2, self.count // 2]
        low, high = np.partition(np.concatenate(self._kept), middles)[middles]  # np.median imports when it is called
        return float((low + high) / 2)

    def _add_chunk(self, chunk: Numbers) -> None:
        """Chan's formula joins the mean and the sum of squares of two groups."""
        size, mean = len(chunk), float(chunk.mean())
        squares = float(np.square(chunk - mean).sum())
        total, step = self.count + size, mean - self.mean
        self._squares += squares + step * step * (self.count * size / total)
        self.mean += step * (size / total)
        self.count = total
        low, high = float(chunk.min()), float(chunk.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        self.whole = self.whole and bool((np.floor(chunk) == chunk).all())
        if self._counts is not None:
            self._count_values(chunk, low, high)
        if self._kept is not None:
            self._kept = [*self._kept, chunk.copy()] if total <= self._most_kept else None

    def _count_values(self, chunk: Numbers, low: float, high: float) -> None:
        counts = self._counts
        if counts is None or not self.whole:
            self._counts = None
            return
        if high - low < _DENSE:
            found = np.bincount((chunk - low).astype(np.int64))
            values = np.flatnonzero(found)
            pairs = zip(values.tolist(), found[values].tolist(), strict=True)
            shift = int(low)
        else:
            distinct = pa.array(chunk).value_counts()
            pairs = zip(map(int, distinct.field(0).to_pylist()), distinct.field(1).to_pylist(), strict=True)
            shift = 0
        for value, count in pairs:
            counts[value + shift] = counts.get(value + shift, 0) + count
        if len(counts) > MOST_VALUES:
            self._counts = None


class Histogram:
    """Counts in BINS of equal width from minimum to maximum; the second pass. The maximum is in the last bin."""

    def __init__(self, minimum: float, maximum: float) -> None:
        self._low, self._width = minimum, maximum - minimum
        self._counts = np.zeros(BINS * FINE_BINS, np.int64)

    def add(self, values: Numbers) -> None:
        """Values between minimum and maximum."""
        if not self._width:
            self._counts[0] += len(values)
            return
        fine = (values - self._low) / self._width * len(self._counts)
        found = np.bincount(fine.astype(np.int64), minlength=len(self._counts))
        found[len(self._counts) - 1] += found[len(self._counts) :].sum()
        self._counts += found[: len(self._counts)]

    def counts(self) -> tuple[int, ...]:
        return tuple(self._counts.reshape(BINS, FINE_BINS).sum(axis=1).tolist())

    def median(self) -> float:
        """Linear within the fine bin that holds it: off by at most the width of one, 1/4000 of the range."""
        ends = np.cumsum(self._counts)
        middle = ends[-1] / 2
        found = int(np.searchsorted(ends, middle))
        inside = (middle - (ends[found] - self._counts[found])) / self._counts[found]
        return float(self._low + (found + inside) * (self._width / len(self._counts)))


class CategoryCounts:
    """The distinct strings of a column with their counts, until there are too many."""

    def __init__(self) -> None:
        self.counts: dict[str, int] | None = {}

    def add(self, values: Sequence[str], counts: Sequence[int]) -> None:
        """Distinct strings of a block, with their counts."""
        if self.counts is None:
            return
        for value, count in zip(values, counts, strict=True):
            self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MOST_CATEGORIES or any(len(value) > LONGEST_CATEGORY for value in values):
            self.counts = None

    def ordered(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """By falling count, then by name in code-point order."""
        found: list[tuple[str, int]] = sorted((self.counts or {}).items(), key=lambda pair: (-pair[1], pair[0]))
        return tuple(name for name, _ in found), tuple(count for _, count in found)


def present_values(cells: Any) -> Numbers:
    """The values of a float64 array that are not null, in order."""
    values: Numbers = (cells.drop_null() if cells.null_count else cells).to_numpy(zero_copy_only=False)
    return values
