"""Ticks against literals, and against what nobody would print: float noise, half steps, labels that repeat."""

import itertools
import math
import random
from decimal import Decimal

import pytest

from core.plot.ticks import linear_ticks, log_ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0, 1200, 8, "0 200 400 600 800 1000 1200"),
        (0, 1, 5, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (0.1, 0.35, 4, "0.1 0.2 0.3"),
        (0, 0.3, 3, "0.0 0.1 0.2 0.3"),  # 3 * 0.1 is 0.30000000000000004 in floats
        (-1, 1, 4, "-1.0 -0.5 0.0 0.5 1.0"),
        (7, 41, 4, "10 20 30 40"),
        (0, 18_000, 4, "0 5k 10k 15k"),
        (0, 12_500, 4, "0 5k 10k"),
        (0, 2400, 5, "0 500 1000 1500 2000"),
        (9_400, 10_600, 3, "9.5k 10k 10.5k"),
        (0, 3_000_000, 3, "0 1M 2M 3M"),
        (0, 1.2e15, 3, "0 5e14 1e15"),
        (0, 5e-5, 5, "0 1e-5 2e-5 3e-5 4e-5 5e-5"),
        (1.0, 1.0004, 4, "1.0000 1.0001 1.0002 1.0003 1.0004"),
    ],
)
def test_linear_by_hand(low: float, high: float, most: int, labels: str) -> None:
    assert " ".join(tick.label for tick in linear_ticks(low, high, most)) == labels


def test_an_axis_that_counts_has_no_halves() -> None:
    assert [tick.label for tick in linear_ticks(0, 3, 10, whole=True)] == ["0", "1", "2", "3"]
    assert [tick.label for tick in linear_ticks(0, 3, 6)] == ["0.0", "0.5", "1.0", "1.5", "2.0", "2.5", "3.0"]


@pytest.mark.parametrize(
    ("low", "high", "most", "labels"),
    [
        (0.008, 3.0, 6, "0.01 0.1 1"),
        (0.001, 1000.0, 8, "0.001 0.01 0.1 1 10 100 1000"),
        (1e-7, 0.2, 10, "1e-7 1e-6 1e-5 1e-4 1e-3 1e-2 1e-1"),
        (1e-6, 1.0, 4, "1e-6 1e-4 1e-2 1"),  # every other decade
        (1e-12, 1e8, 4, "1e-10 1e-5 1 1e5"),  # every fifth
        (0.9, 30.0, 6, "1 2 5 10 20"),
        (0.3, 0.9, 3, "0.4 0.6 0.8"),  # of 1, 2, 5 only 0.5 lies here: the ticks are those of a linear axis
    ],
)
def test_logarithmic_by_hand(low: float, high: float, most: int, labels: str) -> None:
    assert " ".join(tick.label for tick in log_ticks(low, high, most) if tick.label) == labels


def test_minor_ticks_lie_between_decades() -> None:
    values = [tick.value for tick in log_ticks(1.0, 1000.0, 6)]
    assert values == [*range(1, 10), *range(10, 100, 10), *range(100, 1001, 100)]


def test_any_axis_has_readable_ticks() -> None:
    """In range, 1-2-5 apart, as many as asked for, and every label says exactly where its tick is."""
    chance = random.Random(7)
    for _ in range(500):
        low = chance.uniform(-1, 1) * 10 ** chance.uniform(-12, 12)
        high = low + 10 ** chance.uniform(-6, 12) * abs(low)
        most = chance.randint(2, 12)
        found = linear_ticks(low, high, most)
        assert len(found) <= most + 1
        assert all(low - 1e-9 * (high - low) <= tick.value <= high + 1e-9 * (high - low) for tick in found)
        assert len({tick.label for tick in found}) == len(found)
        assert [float(number(tick.label)) for tick in found] == [tick.value for tick in found]
        steps = {Decimal(number(b.label)) - Decimal(number(a.label)) for a, b in itertools.pairwise(found)}
        assert len(steps) <= 1
        assert {step.normalize().as_tuple().digits for step in steps} <= {(1,), (2,), (5,)}


def number(label: str) -> str:
    sizes = {"k": "e3", "M": "e6", "G": "e9", "T": "e12"}
    return str(Decimal(label[:-1] + sizes[label[-1]] if label[-1] in sizes else label))


def test_log_ticks_stay_on_the_axis() -> None:
    chance = random.Random(8)
    for _ in range(500):
        low = 10 ** chance.uniform(-30, 10)
        high = low * 10 ** chance.uniform(0.05, 40)
        found = log_ticks(low, high, chance.randint(2, 10))
        assert all(low * (1 - 1e-6) <= tick.value <= high * (1 + 1e-6) for tick in found)
        assert sum(bool(tick.label) for tick in found) >= 1
        assert all(math.isclose(float(number(tick.label)), tick.value) for tick in found if tick.label)
