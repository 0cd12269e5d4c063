"""The ticks of an axis and their labels: 1, 2 or 5 times a power of ten, without floating-point noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

_SUFFIXES = ((15, ""), (12, "T"), (9, "G"), (6, "M"), (3, "k"))


@dataclass(frozen=True, slots=True)
class Tick:
    """A tick on an axis; one without a label is a minor tick."""

    value: float
    label: str


def linear_ticks(low: float, high: float, most: int, *, whole: bool = False) -> list[Tick]:
    """Ticks from `low` to `high`, a step of 1, 2 or 5 times a power of ten apart; at most about `most`.

    `whole` is for axes that count: no tick lies between two whole numbers.
    """
    factor, power = _nice_step((high - low) / max(1, most))
    if whole and power < 0:
        factor, power = 1, 0
    step = factor * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    exact = [Decimal(index * factor).scaleb(power) for index in range(first, last + 1)]
    return [Tick(float(value), label) for value, label in zip(exact, _linear_labels(exact, power), strict=True)]


def log_ticks(low: float, high: float, most: int) -> list[Tick]:
    """Ticks of a logarithmic axis: decades, with minor ticks between them if they fit.

    Over few decades 2 and 5 are labelled too; over less than one, the ticks are those of a linear axis.
    """
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = last - first + 1
    if decades > most:
        stride = _at_least((decades - 1) / most)
        return _decade_ticks([power for power in range(first, last + 1) if power % stride == 0])
    labelled = {(factor, power) for power in range(first - 1, last + 1) for factor in (1, 2, 5)}
    shown = sorted(
        (decimal_value(place), place)
        for place in labelled
        if low <= decimal_value(place) * (1 + 1e-9) and decimal_value(place) <= high
    )
    if decades >= 3 or (decades >= 2 and len(shown) > most):
        minor = {(factor, power) for power in range(first - 1, last + 1) for factor in range(2, 10)}
        between = (
            [Tick(decimal_value(place), "") for place in minor if low <= decimal_value(place) <= high]
            if decades <= 8
            else []
        )
        return sorted([*_decade_ticks(range(first, last + 1)), *between], key=lambda tick: tick.value)
    if len(shown) < 2 or len(shown) > most + 2:
        return [tick for tick in linear_ticks(low, high, most) if tick.value > 0]
    labels = _log_labels([place for _, place in shown])
    return [Tick(value, label) for (value, _), label in zip(shown, labels, strict=True)]


def decimal_value(place: tuple[int, int]) -> float:
    """(factor, power) -> factor 10^power, correctly rounded."""
    return float(Decimal(place[0]).scaleb(place[1]))


def _nice_step(least: float) -> tuple[int, int]:
    """The smallest of 1, 2, 5, 10 … that is at least `least`, as (factor, power)."""
    power = math.floor(math.log10(least))
    for factor in (1, 2, 5):
        if factor * 10.0**power >= least * (1 - 1e-9):
            return factor, power
    return 1, power + 1


def _at_least(least: float) -> int:
    factor, power = _nice_step(least)
    return max(1, round(factor * 10.0**power))


def _decade_ticks(powers: Sequence[int]) -> list[Tick]:
    places = [(1, power) for power in powers]
    return [Tick(decimal_value(place), label) for place, label in zip(places, _log_labels(places), strict=True)]


def _log_labels(places: Sequence[tuple[int, int]]) -> list[str]:
    """Plain numbers near one; scientific notation for all of them if one is far from one."""
    far = any(power < -4 or power > 4 for _, power in places)
    return [
        f"{factor}e{power}" if far and power else _plain_label(Decimal(factor).scaleb(power), max(0, -power))
        for factor, power in places
    ]


def _linear_labels(values: Sequence[Decimal], power: int) -> list[str]:
    """All labels in one notation, which the largest value determines: 0.25, 12.5k or 2e-5."""
    largest = max((abs(value) for value in values), default=Decimal(0))
    if largest >= 10**15 or Decimal(0) < largest < Decimal("0.001"):
        return [_scientific_label(value) for value in values]
    if largest >= 10_000:
        size, suffix = next(found for found in _SUFFIXES if largest >= 10 ** found[0])
        return [f"{_short_decimal(value.scaleb(-size))}{suffix}" if value else "0" for value in values]
    return [_plain_label(value, max(0, -power)) for value in values]


def _plain_label(value: Decimal, digits: int) -> str:
    return f"{value or Decimal(0):.{digits}f}"


def _short_decimal(value: Decimal) -> str:
    return f"{value.normalize():f}"


def _scientific_label(value: Decimal) -> str:
    if not value:
        return "0"
    power = value.adjusted()
    return f"{_short_decimal(value.scaleb(-power))}e{power}"
