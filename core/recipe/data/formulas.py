"""The functions that a point can descend. A new one: its formula, and its entry in FORMULAS.

The engine calls a formula with tensors, a picture with floats, so it uses only + - * / and **.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import e
from typing import Any, Final

Number = Any  # a float, or a 0-dimensional tensor
Stretch = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Formula:
    """`value(x, y, …)` takes as many numbers as `window` has ranges, which are the least that a picture shows.

    A formula that `takes_h` gets as many numbers as the job has curvatures h; its window has one range for all of them.
    """

    value: Callable[..., Number]
    text: str
    about: str
    window: tuple[Stretch, ...]
    takes_h: bool = False


def quadratic(*x: Number, h: Sequence[float]) -> Number:
    return sum(curvature * each**2 for curvature, each in zip(h, x, strict=True)) / 2


def square(x: Number) -> Number:
    return x**2


def saddle(x: Number, y: Number) -> Number:
    return (x**2 - y**2) / 2 + y**4 / 4


def double_well(x: Number) -> Number:
    return (x**2 - 1) ** 2 / 4 + 0.15 * x


def sharp_flat(x: Number) -> Number:
    return 1 - 0.9 * e ** (-((x + 2) ** 2) / 2) - e ** (-((x - 1.5) ** 2) / 0.045)


def rosenbrock(x: Number, y: Number) -> Number:
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


def beale(x: Number, y: Number) -> Number:
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


def himmelblau(x: Number, y: Number) -> Number:
    return (x**2 + y - 11) ** 2 + (x + y**2 - 7) ** 2


FORMULAS: Final[dict[str, Formula]] = {
    "quadratic": Formula(
        quadratic,
        "½ Σ h_i x_i²",
        "A bowl, or a narrow valley, of given curvatures h; steps are stable below 2 / the largest.",
        ((-1, 1),),
        takes_h=True,
    ),
    "square": Formula(square, "x²", "The simplest bowl; its minimum is at 0.", ((-2, 2),)),
    "saddle": Formula(
        saddle,
        "(x² - y²)/2 + y⁴/4",
        "A saddle at (0, 0) between two minima at (0, ±1); from y = 0 descent ends in the saddle.",
        ((-1.6, 1.6), (-1.6, 1.6)),
    ),
    "double_well": Formula(
        double_well,
        "(x² - 1)²/4 + 0.15x",
        "A local minimum at 0.9143 and the global one at -1.0679.",
        ((-1.6, 1.6),),
    ),
    "sharp_flat": Formula(
        sharp_flat,
        "1 - 0.9 exp(-(x + 2)²/2) - exp(-(x - 1.5)²/0.045)",
        "A flat minimum at -2 and a deeper, sharp one at 1.4998, of curvature 44.42.",
        ((-5, 3.5),),
    ),
    "rosenbrock": Formula(
        rosenbrock,
        "(1 - x)² + 100 (y - x²)²",
        "A curved valley, easy to find and hard to follow; its minimum is at (1, 1).",
        ((-2, 2), (-1, 3)),
    ),
    "beale": Formula(
        beale,
        "(1.5 - x + xy)² + (2.25 - x + xy²)² + (2.625 - x + xy³)²",
        "A flat plain with steep corners; its minimum is at (3, 0.5).",
        ((-4.5, 4.5), (-4.5, 4.5)),
    ),
    "himmelblau": Formula(
        himmelblau,
        "(x² + y - 11)² + (x + y² - 7)²",
        "Four minima of equal depth; the start determines the minimum that a run reaches.",
        ((-6, 6), (-6, 6)),
    ),
}
