"""Fewer points of a curve, chosen so that nothing that an eye looks for is lost."""

from collections.abc import Sequence


def thinned(values: Sequence[float], most: int) -> list[int]:
    """Indices, ascending, of at most `most` values: the ends, and of equal buckets the lowest, highest and first NaN.

    Min-max thinning never hides a spike, unlike averages or every n-th point. `values` needs fast slices (an array).
    """
    if len(values) <= most:
        return list(range(len(values)))
    if most < _FEWEST:
        return sorted(_picks(values, 0, len(values), ends=True)[:most])
    per_bucket = 3 if _has_nan(values) else 2
    buckets = (most - 2) // per_bucket
    kept = {0, len(values) - 1}
    for bucket in range(buckets):
        start, stop = bucket * len(values) // buckets, (bucket + 1) * len(values) // buckets
        kept.update(_picks(values, start, stop))
    return sorted(kept)


_FEWEST = 5  # the ends and one bucket with a NaN in it


def _has_nan(values: Sequence[float]) -> bool:
    # A sum is NaN when a term is, and also for inf - inf: only then look at each.
    total = sum(values)
    return total != total and any(value != value for value in values)  # noqa: PLR0124 - that is what NaN is


def _picks(values: Sequence[float], start: int, stop: int, *, ends: bool = False) -> list[int]:
    """The places of the first NaN, the highest and the lowest value in values[start:stop], without repetition."""
    bucket = values[start:stop]
    if _has_nan(bucket):
        finite = [place for place, value in enumerate(bucket) if value == value]  # noqa: PLR0124 - as above
        first_nan = next(place for place, value in enumerate(bucket) if value != value)  # noqa: PLR0124 - as above
        extremes = [max(finite, key=bucket.__getitem__), min(finite, key=bucket.__getitem__)] if finite else []
        places = [first_nan, *extremes]
    else:
        places = [bucket.index(max(bucket)), bucket.index(min(bucket))]
    if ends:
        places += [len(bucket) - 1, 0]
    return list(dict.fromkeys(start + place for place in places))
