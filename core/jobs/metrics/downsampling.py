"""Min-max downsampling of curves: the ends, the extremes and any NaN are kept."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

Pieces = Iterable["array[float]"]

_FEWEST: Final = 5  # the ends and one bucket with a NaN in it


def downsample_values(values: "array[float]", most: int) -> list[int]:
    """Indices, ascending, of at most `most` values: the ends, and of equal buckets the lowest, highest and first NaN.

    Min-max downsampling never hides a spike, unlike averages or every n-th point.
    """
    return downsample_pieces(lambda: (values,), len(values), most)


def downsample_pieces(read: Callable[[], Pieces], count: int, most: int) -> list[int]:
    """The same for `count` values that are read in pieces, never all at once. If there is a NaN the pieces are read
    again: there must then be fewer buckets, each with room for one more value.
    """
    if count <= most:
        return list(range(count))
    picks = _pick_buckets(read(), count, max(1, (most - 2) // 2))
    if most < _FEWEST:
        first = [place for place in (picks[0].nan, picks[0].high, picks[0].low, count - 1, 0) if place is not None]
        return sorted(list(dict.fromkeys(first))[:most])
    if any(pick.nan is not None for pick in picks):
        picks = _pick_buckets(read(), count, (most - 2) // 3)
    kept = {0, count - 1}.union(*((pick.nan, pick.high, pick.low) for pick in picks))
    return sorted(place for place in kept if place is not None)


@dataclass(slots=True)
class _BucketPick:
    """The indices of a bucket's first NaN, highest and lowest value; of equal ones the first."""

    nan: int | None = None
    high: int | None = None
    low: int | None = None
    top: float = 0.0
    bottom: float = 0.0

    def add_values(self, values: "array[float]", offset: int) -> None:
        """Take in the next values of the bucket, the first of which has the index `offset`."""
        total = sum(values)
        if total != total:  # a term is NaN, or they hold both infinities  # noqa: PLR0124 - that is what NaN is
            places = [place for place, value in enumerate(values) if value == value]  # noqa: PLR0124 - as above
            if len(places) < len(values) and self.nan is None:
                self.nan = offset + next(place for place in range(len(values)) if values[place] != values[place])
            if not places:
                return
            top, bottom = max(values[place] for place in places), min(values[place] for place in places)
        else:
            top, bottom = max(values), min(values)
        if self.high is None or top > self.top:
            self.top, self.high = top, offset + values.index(top)
        if self.low is None or bottom < self.bottom:
            self.bottom, self.low = bottom, offset + values.index(bottom)


def _pick_buckets(pieces: Pieces, count: int, buckets: int) -> list[_BucketPick]:
    """The picks of `buckets` equal buckets."""
    picks = [_BucketPick() for _ in range(buckets)]
    for bucket, offset, values in _split_pieces(pieces, count, buckets):
        picks[bucket].add_values(values, offset)
    return picks


def _split_pieces(pieces: Pieces, count: int, buckets: int) -> Iterator[tuple[int, int, "array[float]"]]:
    """The pieces, split where a bucket ends: (bucket, index of the first value, values)."""
    bucket, place, end = 0, 0, count // buckets
    for piece in pieces:
        start = 0
        while start < len(piece):
            values = piece[start : start + end - place]
            yield bucket, place, values
            start, place = start + len(values), place + len(values)
            if place == end and place < count:
                bucket += 1
                end = (bucket + 1) * count // buckets
