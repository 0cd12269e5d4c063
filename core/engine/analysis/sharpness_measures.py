"""The measures of sharpness, each divided into units of work; see core.recipe.analyses.sharpness."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor

from core.engine.analysis.curvature import Curvature, Lanczos
from core.engine.analysis.directions import normalise_direction
from core.engine.analysis.loss_surface import LossSurface
from core.engine.analysis.progress import Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.analysis.tables import nan_tensor
from core.engine.determinism import seeded_generator
from core.recipe.analyses.sharpness import Measure, Sharpness

START = 0.1  # of the radius: an ascent begins at a random point at this distance, since the gradient may be 0 at 0
REACH = 2.5  # radii: the total length of all steps of an ascent (Madry et al. 2018)


class Measurement(NamedTuple):
    """A value, its possible error (NaN: unknown), and the passes over the split that it took."""

    value: float
    error: float
    forward: int
    backward: int


class LossAtWeights:
    """The train loss of one subject around its weights (P,)."""

    def __init__(self, subject: AnalysisSubject, seed: int) -> None:
        """`seed` is the seed of all random numbers."""
        self.subject, self.network, self.seed = subject, subject.network, seed
        self.weights = subject.network.values.clone()
        self.surface = LossSurface(subject.network, subject.parts["train"], subject.objective.loss)
        self.height = self.surface.loss_at(self.weights)

    @cached_property
    def curvature(self) -> Curvature:
        return Curvature(self.surface, self.weights)

    def draw_normal(self, *purpose: str | int) -> Tensor:
        """Standard normal numbers (P,), the same for every subject of the same size."""
        numbers = torch.randn(len(self.weights), generator=seeded_generator(self.seed, *purpose), dtype=torch.float64)
        return numbers.to(self.weights)

    def loss_increase(self, offset: Tensor) -> float:
        """The loss at weights + offset (P,) minus the loss at the weights."""
        return self.surface.loss_at(self.weights + offset) - self.height


class SharpnessMeasure(Protocol):
    """One measure: `columns` are the reported names, `state["raw"]` float64 (width,) the numbers behind them."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def units(self) -> int: ...

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        """The state before the first unit: tensors that `compute_unit` changes in place or replaces."""

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        """Compute one unit of work and record it in the state."""

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        """One measurement for each column, from the state after the last unit."""


def mean_and_error(raw: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(raw.mean()), float(raw.std()) / math.sqrt(len(raw))


@dataclass(frozen=True, slots=True)
class GradientNorm:
    """|g|, the norm of the gradient over the whole split."""

    columns: ClassVar[tuple[str, ...]] = ("gradient_norm",)
    units: ClassVar[int] = 1

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        return {"raw": nan_tensor(1)}

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        state["raw"][unit] = torch.linalg.vector_norm(ground.surface.loss_and_gradient(ground.weights)[1])

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        return [Measurement(float(state["raw"]), math.nan, 1, 1)]


@dataclass(frozen=True, slots=True)
class RandomPerturbation:
    """The mean increase of the loss over random offsets (P,), with its standard error."""

    columns: tuple[str, ...]
    units: int
    offset: Callable[[LossAtWeights, int], Tensor]

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        return {"raw": nan_tensor(self.units)}

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        state["raw"][unit] = ground.loss_increase(self.offset(ground, unit))

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        return [Measurement(*mean_and_error(state["raw"]), self.units + 1, 0)]


def filter_noise(spec: Sharpness) -> RandomPerturbation:
    """Offsets along directions with normalised filters; biases and batch norm do not change."""

    def offset(ground: LossAtWeights, unit: int) -> Tensor:
        direction = ground.draw_normal("filter noise", unit)
        return spec.radius * normalise_direction(ground.network, direction, "filter", "biasbn")

    return RandomPerturbation(("filter_noise",), spec.directions, offset)


def multiplicative_noise(spec: Sharpness) -> RandomPerturbation:
    """Offsets to w (1 + radius n), n standard normal for each weight."""

    def offset(ground: LossAtWeights, unit: int) -> Tensor:
        return spec.radius * ground.weights * ground.draw_normal("multiplicative noise", unit)

    return RandomPerturbation(("multiplicative_noise",), spec.directions, offset)


@dataclass(frozen=True, slots=True)
class Eigenvalues:
    """Both ends of the spectrum by `steps` Lanczos steps; the last unit computes their true residuals."""

    steps: int
    columns: ClassVar[tuple[str, ...]] = ("lambda_max", "lambda_min")

    @property
    def units(self) -> int:
        return self.steps + 1

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        lanczos = Lanczos.start_iteration(ground.weights, self.steps, ground.seed)
        return {"raw": nan_tensor(self.steps), "ends": nan_tensor(2, 2), **lanczos.tensors()}

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        lanczos, product = Lanczos.from_tensors(state, ground.seed), ground.curvature.hessian_product
        if unit < self.steps:
            if not lanczos.is_complete:
                lanczos.extend_basis(product)
            state |= lanczos.tensors()
            return
        found = lanczos.ritz_pairs()
        state["raw"][: len(found.values)] = found.values
        for row, place in enumerate((-1, 0)):
            vector = found.vectors[place]
            image = product(vector)
            value = torch.dot(vector, image)
            residual = torch.linalg.vector_norm(image - value * vector)
            state["ends"][row] = torch.stack([value, residual])

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        forward, backward = ground.curvature.product_passes
        count = len(state["basis"]) + 2
        passes = 1 + count * forward, 1 + count * backward
        return [Measurement(value, residual, *passes) for value, residual in state["ends"].tolist()]


@dataclass(frozen=True, slots=True)
class Trace:
    """Hutchinson's estimate with probes of random signs; exact, by unit vectors, for at most as many weights."""

    units: int
    columns: ClassVar[tuple[str, ...]] = ("trace",)

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        return {"raw": nan_tensor(min(self.units, len(ground.weights)))}

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        if unit >= len(state["raw"]):
            return
        probe = torch.zeros_like(ground.weights)
        if len(probe) <= self.units:
            probe[unit] = 1
        else:
            probe.copy_(torch.randint(2, (len(probe),), generator=seeded_generator(ground.seed, "probe", unit)) * 2 - 1)
        state["raw"][unit] = torch.dot(probe, ground.curvature.hessian_product(probe))

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        raw = state["raw"]
        exact = len(ground.weights) <= self.units
        value, error = (float(raw.sum()), 0.0) if exact else mean_and_error(raw)
        forward, backward = ground.curvature.product_passes
        return [Measurement(value, error, 1 + len(raw) * forward, 1 + len(raw) * backward)]


@dataclass(frozen=True, slots=True)
class WorstCase:
    """The largest increase that projected ascent finds within |e / T| <= rho, T = 1 or, if adaptive, |w|.

    Steps have length REACH rho / steps in units of T. The error is the increase in the second half of the steps: the
    true maximum is at least the value.
    """

    columns: tuple[str, ...]
    steps: int
    rho: float
    adaptive: bool

    @property
    def units(self) -> int:
        return self.steps + 1

    def initial_state(self, ground: LossAtWeights) -> Tensors:
        movable = self._weight_scale(ground) > 0
        start = torch.nn.functional.normalize(ground.draw_normal("ascent") * movable, dim=0)
        return {"raw": nan_tensor(self.units), "place": START * self.rho * start}

    def compute_unit(self, ground: LossAtWeights, state: Tensors, unit: int) -> None:
        place = state["place"]
        scale = self._weight_scale(ground)
        if unit == self.steps:
            state["raw"][unit] = ground.loss_increase(scale * place)
            return
        height, slope = ground.surface.loss_and_gradient(ground.weights + scale * place)
        state["raw"][unit] = height - ground.height
        place = place + REACH * self.rho / self.steps * torch.nn.functional.normalize(scale * slope, dim=0)
        beyond = float(torch.linalg.vector_norm(place)) / self.rho
        state["place"] = place / max(beyond, 1.0)

    def final_measurements(self, ground: LossAtWeights, state: Tensors) -> list[Measurement]:
        raw = state["raw"]
        highest = float(raw.max())
        return [Measurement(highest, highest - float(raw[: len(raw) // 2].max()), self.steps + 2, self.steps)]

    def _weight_scale(self, ground: LossAtWeights) -> Tensor:
        return ground.weights.abs() if self.adaptive else torch.ones_like(ground.weights)


GAUGES: dict[Measure, Callable[[Sharpness], SharpnessMeasure]] = {
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
