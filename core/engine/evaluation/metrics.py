"""The builders of the metrics. Errors of a regression are in the data's own units."""

from collections.abc import Sequence

from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.evaluation.measure import ExampleValues, Measure, MeasureInputs, mean_of_targets
from core.recipe.metrics import MetricSpec


def build_accuracy(spec: MetricSpec, inputs: MeasureInputs) -> ExampleValues:
    """Whether the largest output of an example is that of its class."""
    del spec, inputs
    return is_correct


def is_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Bool (b,)"""
    return outputs.argmax(1) == targets


def build_mae(spec: MetricSpec, inputs: MeasureInputs) -> Measure:
    """Mean absolute error."""
    del spec

    def example_sums(outputs: Tensor, targets: Tensor) -> Tensor:
        return in_own_units(outputs.double() - targets.double(), inputs).abs().sum().reshape(1)

    return Measure(example_sums, mean_of_targets)


def build_r2(spec: MetricSpec, inputs: MeasureInputs) -> Measure:
    """1 - sum of squared errors / sum of squared deviations; of constant targets it is 1 when exact, else 0."""
    del spec

    def example_sums(outputs: Tensor, targets: Tensor) -> Tensor:
        return in_own_units(outputs.double() - targets.double(), inputs).square().sum().reshape(1)

    def split_constants(part: Split) -> Tensor:
        """The sum of squared deviations."""
        targets = part.targets.double()
        return in_own_units(targets - targets.mean(0), inputs).square().sum().reshape(1)

    return Measure(example_sums, explained_share, split_constants=split_constants, constants=1)


def explained_share(sums: Sequence[float], part: Split) -> float:
    """From the sum of squared errors, and that of squared deviations."""
    del part
    errors, total = sums
    return 1 - errors / total if total > 0 else float(errors == 0)


def in_own_units(values: Tensor, inputs: MeasureInputs) -> Tensor:
    """Differences of standardised numbers, float64 (b, outputs), in the units of the data."""
    scale = inputs.target_scale
    return values * scale.std.double().to(values.device) if scale else values
