"""Thinning never hides an extreme or a NaN, and never exceeds its budget."""

import math
import random
from array import array

import pytest

from core.jobs.thinning import thinned


def test_a_short_series_stays_whole() -> None:
    assert thinned(array("d", [3.0, 1.0, 2.0]), 3) == [0, 1, 2]


def test_by_hand() -> None:
    # 12 values, 6 points: the ends 0 and 11, and of the buckets [0..6) and [6..12) the lowest and the highest.
    values = array("d", [5, 1, 5, 5, 9, 5, 5, 5, 2, 5, 8, 5])
    assert thinned(values, 6) == [0, 1, 4, 8, 10, 11]


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 7, 10, 33, 500])
@pytest.mark.parametrize("nan", [False, True])
def test_budget_ends_and_extremes(most: int, nan: bool) -> None:
    chance = random.Random(most)
    values = array("d", (chance.gauss(0.0, 1.0) for _ in range(1003)))
    if nan:
        values[501] = math.nan
    kept = thinned(values, most)
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
    assert {1, 2} <= set(thinned(values, 10))


def test_nothing_but_nan() -> None:
    assert thinned(array("d", [math.nan] * 100), 8)[0] == 0
