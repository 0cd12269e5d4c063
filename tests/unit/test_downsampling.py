"""Thinning never hides an extreme or a NaN, and never exceeds its budget."""

import itertools
import math
import random
from array import array

import pytest

from core.jobs.metrics.downsampling import downsample_pieces, downsample_values


def textbook(values: list[float], most: int) -> list[int]:
    """The definition, word by word, with all values at hand; `most` is at least 5 and less than there are values."""
    nan = any(map(math.isnan, values))
    buckets = (most - 2) // (3 if nan else 2)
    kept = {0, len(values) - 1}
    for bucket in range(buckets):
        places = range(bucket * len(values) // buckets, (bucket + 1) * len(values) // buckets)
        finite = [place for place in places if not math.isnan(values[place])]
        if finite:
            kept |= {max(finite, key=values.__getitem__), min(finite, key=values.__getitem__)}
        kept |= set([place for place in places if place not in finite][:1])
    return sorted(kept)


@pytest.mark.parametrize("most", [5, 6, 7, 8, 11, 33, 99, 100])
@pytest.mark.parametrize("strange", [(), (math.nan,), (math.inf, -math.inf), (math.nan, math.inf, -math.inf, math.nan)])
def test_in_pieces_it_is_the_same_as_by_the_book(most: int, strange: tuple[float, ...]) -> None:
    """Wherever the pieces are cut, and with equal values, of which the first counts."""
    chance = random.Random(most)
    values = [float(chance.randrange(12)) for _ in range(101)]
    for value in strange:
        values[chance.randrange(101)] = value
    for longest in (1, 7, 40, 101):
        cuts = [0]
        while cuts[-1] < 101:
            cuts.append(min(101, cuts[-1] + chance.randint(1, longest)))
        pieces = [array("d", values[start:end]) for start, end in itertools.pairwise(cuts)]
        assert downsample_pieces(lambda pieces=pieces: pieces, 101, most) == textbook(values, most)  # type: ignore[misc]


def test_a_bucket_of_nothing_but_nan_in_the_middle() -> None:
    values = [0.0] * 10 + [math.nan] * 10 + [1.0] * 10
    assert downsample_values(array("d", values), 11) == textbook(values, 11) == [0, 10, 20, 29]


def test_a_short_series_stays_whole() -> None:
    assert downsample_values(array("d", [3.0, 1.0, 2.0]), 3) == [0, 1, 2]


def test_by_hand() -> None:
    # 12 values, 6 points: the ends 0 and 11, and of the buckets [0..6) and [6..12) the lowest and the highest.
    values = array("d", [5, 1, 5, 5, 9, 5, 5, 5, 2, 5, 8, 5])
    assert downsample_values(values, 6) == [0, 1, 4, 8, 10, 11]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 7, 10, 33, 500])
@pytest.mark.parametrize("nan", [False, True])
def test_budget_ends_and_extremes(most: int, nan: bool) -> None:
    chance = random.Random(most)
    values = array("d", (chance.gauss(0.0, 1.0) for _ in range(1003)))
    if nan:
        values[501] = math.nan
    kept = downsample_values(values, most)
    assert kept == sorted(set(kept))
    assert 0 < len(kept) <= most
    finite = [value for value in values if not math.isnan(value)]
    shown = [values[index] for index in kept]
    if nan:
        assert 501 in kept
    if most >= 3:
        assert max(finite) in shown
        assert min(finite) in shown
    if most >= 5:
        assert (kept[0], kept[-1]) == (0, 1002)


def test_infinities_alone_are_no_nan() -> None:
    values = array("d", [0.0, math.inf, -math.inf, *([1.0] * 97)])
    assert {1, 2} <= set(downsample_values(values, 10))


def test_nothing_but_nan() -> None:
    assert downsample_values(array("d", [math.nan] * 100), 8)[0] == 0
