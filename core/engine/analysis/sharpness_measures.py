"""The measures of sharpness, each cut into units that can be stopped between; see core.recipe.analyses.sharpness."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from core.engine.analysis.curvature import Curvature, Lanczos
from core.engine.analysis.directions import normalised
from core.engine.analysis.loss_surface import Terrain
from core.engine.analysis.progress import Tensors
from core.engine.analysis.subject import Subject
from core.engine.analysis.tables import unknown
from core.engine.determinism import stream
from core.recipe.analyses.sharpness import Measure, Sharpness

START = 0.1  # of the radius: how far from the weights an ascent begins, at random, since their own slope may be 0
REACH = 2.5  # radii that all steps of an ascent make together (Madry et al. 2018)


class Reading(NamedTuple):
    """A value, how far it may be off (NaN: not known), and the passes over the part that it took."""

    value: float
    error: float
    forward: int
    backward: int


class Ground:
    """One subject's train loss around its weights."""

    def __init__(self, subject: Subject, seed: int) -> None:
        """`seed` is that of everything random."""
        self.subject, self.network, self.seed = subject, subject.network, seed
        self.weights = subject.network.values.clone()
        self.terrain = Terrain(subject.network, subject.parts["train"], subject.objective.loss)
        self.height = self.terrain.height(self.weights)

    @cached_property
    def curvature(self) -> Curvature:
        return Curvature(self.terrain, self.weights)

    def draw(self, *purpose: str | int) -> Tensor:
        """Standard normal numbers (P,), the same for every subject of the same size."""
        numbers = torch.randn(len(self.weights), generator=stream(self.seed, *purpose), dtype=torch.float64)
        return numbers.to(self.weights)

    def rise(self, offset: Tensor) -> float:
        """By how much the loss is higher at weights + offset (P,)."""
        return self.terrain.height(self.weights + offset) - self.height


class Gauge(Protocol):
    """One measure. `columns` are what it reports, `state["raw"]` float64 (width,) the numbers that they come from."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def units(self) -> int: ...

    def begin(self, ground: Ground) -> Tensors:
        """Its state before the first unit, tensors that `advance` changes in place or replaces."""

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None: ...

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        """One for each column."""


def mean(raw: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(raw.mean()), float(raw.std()) / math.sqrt(len(raw))


@dataclass(frozen=True, slots=True)
class GradientNorm:
    """|g|, over the whole part."""

    columns: ClassVar[tuple[str, ...]] = ("gradient_norm",)
    units: ClassVar[int] = 1

    def begin(self, ground: Ground) -> Tensors:
        return {"raw": unknown(1)}

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None:
        state["raw"][unit] = torch.linalg.vector_norm(ground.terrain.slope(ground.weights)[1])

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        return [Reading(float(state["raw"]), math.nan, 1, 1)]


@dataclass(frozen=True, slots=True)
class Noise:
    """The mean rise over random offsets, with its standard error."""

    columns: tuple[str, ...]
    units: int
    offset: Callable[[Ground, int], Tensor]

    def begin(self, ground: Ground) -> Tensors:
        return {"raw": unknown(self.units)}

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None:
        state["raw"][unit] = ground.rise(self.offset(ground, unit))

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        return [Reading(*mean(state["raw"]), self.units + 1, 0)]


def filter_noise(spec: Sharpness) -> Noise:
    """Along directions normalised filter by filter; biases and batch norm stay."""

    def offset(ground: Ground, unit: int) -> Tensor:
        direction = ground.draw("filter noise", unit)
        return spec.radius * normalised(ground.network, direction, "filter", "biasbn")

    return Noise(("filter_noise",), spec.directions, offset)


def multiplicative_noise(spec: Sharpness) -> Noise:
    """To w (1 + radius n), every weight by itself."""

    def offset(ground: Ground, unit: int) -> Tensor:
        return spec.radius * ground.weights * ground.draw("multiplicative noise", unit)

    return Noise(("multiplicative_noise",), spec.directions, offset)


@dataclass(frozen=True, slots=True)
class Eigenvalues:
    """Both ends of the spectrum from so many Lanczos steps, and as the last unit their true residuals."""

    steps: int
    columns: ClassVar[tuple[str, ...]] = ("lambda_max", "lambda_min")

    @property
    def units(self) -> int:
        return self.steps + 1

    def begin(self, ground: Ground) -> Tensors:
        lanczos = Lanczos.begin(ground.weights, self.steps, ground.seed)
        return {"raw": unknown(self.steps), "ends": unknown(2, 2), **lanczos.tensors()}

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None:
        lanczos, product = Lanczos.resumed(state, ground.seed), ground.curvature.product
        if unit < self.steps:
            if not lanczos.full:
                lanczos.extend(product)
            state |= lanczos.tensors()
            return
        found = lanczos.pairs()
        state["raw"][: len(found.values)] = found.values
        for row, place in enumerate((-1, 0)):
            vector = found.vectors[place]
            image = product(vector)
            value = torch.dot(vector, image)
            residual = torch.linalg.vector_norm(image - value * vector)
            state["ends"][row] = torch.stack([value, residual])

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        forward, backward = ground.curvature.price
        count = len(state["basis"]) + 2
        passes = 1 + count * forward, 1 + count * backward
        return [Reading(value, residual, *passes) for value, residual in state["ends"].tolist()]


@dataclass(frozen=True, slots=True)
class Trace:
    """Hutchinson's estimate from probes of random signs; exact, by unit vectors, for no more weights than probes."""

    units: int
    columns: ClassVar[tuple[str, ...]] = ("trace",)

    def begin(self, ground: Ground) -> Tensors:
        return {"raw": unknown(min(self.units, len(ground.weights)))}

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None:
        if unit >= len(state["raw"]):
            return
        probe = torch.zeros_like(ground.weights)
        if len(probe) <= self.units:
            probe[unit] = 1
        else:
            probe.copy_(torch.randint(2, (len(probe),), generator=stream(ground.seed, "probe", unit)) * 2 - 1)
        state["raw"][unit] = torch.dot(probe, ground.curvature.product(probe))

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        raw = state["raw"]
        exact = len(ground.weights) <= self.units
        value, error = (float(raw.sum()), 0.0) if exact else mean(raw)
        forward, backward = ground.curvature.price
        return [Reading(value, error, 1 + len(raw) * forward, 1 + len(raw) * backward)]


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The largest rise that projected ascent meets within |e / T| <= rho, T = 1 or, where adaptive, |w|.

    Steps have length REACH rho / steps in the ball's own units. What the second half of them added stands for the
    error: the true maximum is no smaller than the value.
    """

    columns: tuple[str, ...]
    steps: int
    rho: float
    adaptive: bool

    @property
    def units(self) -> int:
        return self.steps + 1

    def begin(self, ground: Ground) -> Tensors:
        movable = self._scale(ground) > 0
        start = torch.nn.functional.normalize(ground.draw("ascent") * movable, dim=0)
        return {"raw": unknown(self.units), "place": START * self.rho * start}

    def advance(self, ground: Ground, state: Tensors, unit: int) -> None:
        place = state["place"]
        scale = self._scale(ground)
        if unit == self.steps:
            state["raw"][unit] = ground.rise(scale * place)
            return
        height, slope = ground.terrain.slope(ground.weights + scale * place)
        state["raw"][unit] = height - ground.height
        place = place + REACH * self.rho / self.steps * torch.nn.functional.normalize(scale * slope, dim=0)
        beyond = float(torch.linalg.vector_norm(place)) / self.rho
        state["place"] = place / max(beyond, 1.0)

    def finish(self, ground: Ground, state: Tensors) -> list[Reading]:
        raw = state["raw"]
        highest = float(raw.max())
        return [Reading(highest, highest - float(raw[: len(raw) // 2].max()), self.steps + 2, self.steps)]

    def _scale(self, ground: Ground) -> Tensor:
        return ground.weights.abs() if self.adaptive else torch.ones_like(ground.weights)


GAUGES: dict[Measure, Callable[[Sharpness], Gauge]] = {
    "gradient_norm": lambda _: GradientNorm(),
    "filter_noise": filter_noise,
    "multiplicative_noise": multiplicative_noise,
    "eigenvalues": lambda spec: Eigenvalues(spec.lanczos_steps),
    "trace": lambda spec: Trace(spec.probes),
    "worst_case": lambda spec: WorstCase(("worst_case",), spec.ascent_steps, spec.rho, adaptive=False),
    "adaptive_worst_case": lambda spec: WorstCase(
        ("adaptive_worst_case",), spec.ascent_steps, spec.adaptive_rho, adaptive=True
    ),
}
