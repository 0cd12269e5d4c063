"""The loss of a step, and the loss and metrics of an evaluation, built from those that the job names."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.datasets.standardizer import Standardizer
from core.engine.evaluation.measure import (
    BatchLoss,
    Loss,
    Measure,
    MeasureInputs,
    average_examples,
    measure_examples,
)
from core.engine.failure import EngineError
from core.engine.implementations import load_implementation
from core.recipe.losses import LossSpec
from core.recipe.metrics import MetricSpec
from core.recipe.spec import JobSpec


class Objective(Protocol):
    """`example_sums` adds up over examples what `metrics_from_sums` turns into means: chunk sizes do not matter.

    All values that an evaluation reads from the device are in these sums: it makes one transfer.
    """

    @property
    def loss(self) -> Loss:
        """Mean loss of a batch: outputs (b, outputs), targets -> scalar."""

    @property
    def additive(self) -> bool:
        """Whether sums of blocks may be added up; if not, `example_sums` takes whole splits."""

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums over the examples of a chunk: float64 (k,)."""

    def split_constants(self, part: Split) -> Tensor:
        """What else `metrics_from_sums` needs of a whole split, the same for all outputs: float64 (m,)."""

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        """Loss and metrics of a whole split, from its sums followed by its constants."""


@dataclass(frozen=True, slots=True)
class MeasuredObjective:
    """The loss of the steps, and the measures of an evaluation by name, that of the loss first."""

    loss: Loss
    measures: Mapping[str, Measure]

    @property
    def additive(self) -> bool:
        return all(each.additive for each in self.measures.values())

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.cat([_sums_of(name, each, outputs, targets) for name, each in self.measures.items()])

    def split_constants(self, part: Split) -> Tensor:
        return torch.cat([each.split_constants(part) for each in self.measures.values()])

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        measures = self.measures.values()
        ends = list(accumulate(each.sums for each in measures))
        constant_ends = accumulate((each.constants for each in measures), initial=ends[-1])
        values = {}
        for (name, each), end, start in zip(self.measures.items(), ends, constant_ends, strict=False):
            own = [*sums[end - each.sums : end], *sums[start : start + each.constants]]
            values[name] = float(each.from_sums(own, part))
        return values


def _sums_of(name: str, measure: Measure, outputs: Tensor, targets: Tensor) -> Tensor:
    found = measure.example_sums(outputs, targets)
    if found.shape != (measure.sums,) or found.dtype != torch.float64:
        message = f"the sums of {name} are {found.dtype} {tuple(found.shape)}, not float64 ({measure.sums},)"
        raise EngineError("engine_error", message, f"Use another release of the plug-in that has {name}.")
    return found


def build_objective(
    spec: JobSpec, target_scale: Standardizer | None, train_targets: Tensor | None = None
) -> MeasuredObjective:
    """The objective of a resolved spec. Raises EngineError if this worker lacks the loss or a metric."""
    if spec.loss is None or spec.metrics is None:
        raise ValueError("the spec is not resolved")
    inputs = MeasureInputs(spec, target_scale, train_targets)
    loss = build_loss(spec.loss, inputs)
    metrics = ((str(each.name), build_metric(each, inputs)) for each in spec.metrics)
    return MeasuredObjective(loss.mean, {"loss": loss.measure, **dict(metrics)})


def build_loss(spec: LossSpec, inputs: MeasureInputs) -> BatchLoss:
    """The loss that the spec's builder returns."""
    built = load_implementation(spec, "loss")(spec, inputs)
    return built if isinstance(built, BatchLoss) else average_examples(built)


def build_metric(spec: MetricSpec, inputs: MeasureInputs) -> Measure:
    """The metric that the spec's builder returns."""
    built = load_implementation(spec, "metric")(spec, inputs)
    return built if isinstance(built, Measure) else measure_examples(built)
