"""Losses and metrics of tests: a few that are right, and some that break the contract in one point each."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.datasets.split import Split
from core.engine.evaluation.measure import BatchLoss, ExampleValues, Measure, MeasureInputs, measure_examples
from core.recipe.facts import Task
from core.recipe.losses.base import LossSpec
from core.recipe.metrics.base import MetricSpec, Mode
from core.recipe.named import NamedComponent


class AbsoluteLoss(LossSpec):
    """The mean of scale * abs(output - target) over examples, summed over outputs."""

    summary: ClassVar[str] = "A loss of a test."
    implementation: ClassVar[str] = "tests.support.measures:build_absolute"
    tasks: ClassVar[tuple[Task, ...]] = ("regression",)
    name: Literal["absolute"] = "absolute"
    scale: float = 1.0


class DrawingLoss(AbsoluteLoss):
    """Adds noise."""

    implementation: ClassVar[str] = "tests.support.measures:build_drawing"


class UnreducedLoss(AbsoluteLoss):
    """A value for each output."""

    implementation: ClassVar[str] = "tests.support.measures:build_unreduced"


class DetachedLoss(AbsoluteLoss):
    """Half of the gradient is missing."""

    implementation: ClassVar[str] = "tests.support.measures:build_detached"


class RelativeLoss(AbsoluteLoss):
    """Divides by the largest error of the batch."""

    implementation: ClassVar[str] = "tests.support.measures:build_relative"


class MissingLoss(AbsoluteLoss):
    """No worker has it."""

    implementation: ClassVar[str] = "tests.support.measures:build_nothing"


class OrderedPairs(MetricSpec):
    """The share of pairs of examples whose first outputs have the order of their classes: it needs the whole split."""

    summary: ClassVar[str] = "A metric of a test."
    implementation: ClassVar[str] = "tests.support.measures:build_ordered_pairs"
    tasks: ClassVar[tuple[Task, ...]] = ("classification",)
    mode: ClassVar[Mode] = "max"
    name: Literal["ordered_pairs"] = "ordered_pairs"


class AddedPairs(OrderedPairs):
    """Says that its sums add up."""

    implementation: ClassVar[str] = "tests.support.measures:build_added_pairs"


class SingleSums(OrderedPairs):
    """Sums in float32."""

    implementation: ClassVar[str] = "tests.support.measures:build_single_sums"


def absolute_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().sum(1)


def build_absolute(spec: AbsoluteLoss, inputs: MeasureInputs) -> ExampleValues:
    return lambda outputs, targets: spec.scale * absolute_errors(outputs, targets)


def build_drawing(spec: NamedComponent, inputs: MeasureInputs) -> ExampleValues:
    return lambda outputs, targets: absolute_errors(outputs, targets) + torch.rand(len(outputs))


def build_unreduced(spec: NamedComponent, inputs: MeasureInputs) -> ExampleValues:
    return lambda outputs, targets: (outputs - targets).abs()


def build_detached(spec: NamedComponent, inputs: MeasureInputs) -> ExampleValues:
    return lambda outputs, targets: absolute_errors((outputs + outputs.detach()) / 2, targets)


def build_relative(spec: NamedComponent, inputs: MeasureInputs) -> BatchLoss:
    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        errors = absolute_errors(outputs, targets)
        return errors.mean() / errors.max()

    return BatchLoss(mean, measure_examples(absolute_errors))


def ordered_share(outputs: Tensor, targets: Tensor) -> Tensor:
    """float64 (2,): the pairs in order, and all pairs of different classes."""
    scores = outputs[:, 0].double()
    higher = targets[:, None] > targets[None]
    return torch.stack([((scores[:, None] > scores[None]) & higher).sum(), higher.sum()]).double()


def share(sums: Sequence[float], part: Split) -> float:
    return sums[0] / sums[1] if sums[1] else 0.0


def build_ordered_pairs(spec: NamedComponent, inputs: MeasureInputs) -> Measure:
    return Measure(ordered_share, share, sums=2, additive=False)


def build_added_pairs(spec: NamedComponent, inputs: MeasureInputs) -> Measure:
    return Measure(ordered_share, share, sums=2)


def build_single_sums(spec: NamedComponent, inputs: MeasureInputs) -> Measure:
    return Measure(count_first_class, share)


def count_first_class(outputs: Tensor, targets: Tensor) -> Tensor:
    """float32 (1,), which the engine refuses."""
    return functional.one_hot(targets).float().sum(0)[:1]
