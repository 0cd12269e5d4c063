"""The builders of the losses."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.evaluation.measure import BatchLoss, Measure, MeasureInputs, mean_of_split, mean_of_targets
from core.recipe.data import Function
from core.recipe.losses import LossSpec


def build_cross_entropy(spec: LossSpec, inputs: MeasureInputs) -> BatchLoss:
    """Cross-entropy of softmax outputs.

    Only training may smooth labels; evaluations always report the cross-entropy of the true classes.
    """
    del spec
    smoothing = inputs.job.label_smoothing
    mean = partial(functional.cross_entropy, label_smoothing=smoothing) if smoothing else functional.cross_entropy
    return BatchLoss(mean, Measure(sum_cross_entropy, mean_of_split))


def sum_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum over examples, added up in float64: (1,)."""
    return functional.cross_entropy(outputs, targets, reduction="none").double().sum().reshape(1)


def build_mse(spec: LossSpec, inputs: MeasureInputs) -> BatchLoss:
    """Mean squared error of the standardised targets."""
    del spec, inputs
    return BatchLoss(functional.mse_loss, Measure(sum_squared_errors, mean_of_targets))


def sum_squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum over examples and outputs, float64 (1,)."""
    return (outputs.double() - targets.double()).square().sum().reshape(1)


def build_function_value(spec: LossSpec, inputs: MeasureInputs) -> BatchLoss:
    """f(x) plus a linear term per example; outputs are the same point x in all rows (b, dimension), targets the a_i.

    Sums of a_i are exact in double, so that over all examples they are exactly 0.
    """
    del spec
    data = inputs.job.data
    if not isinstance(data, Function):
        raise TypeError(f"the loss function is that of a function, not of {data.name}")
    value_at = data.value_at

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        """f(x) + mean of a_i · x."""
        place = outputs[0]
        slope = targets.mean(0, dtype=torch.float64).to(place.dtype)
        value: Tensor = value_at(*place.unbind()) + slope @ place
        return value

    def example_sums(outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of f(x) + a_i · x over the examples, float64 (1,)."""
        place = outputs[0].double()
        total: Tensor = len(targets) * value_at(*place.unbind()) + targets.double().sum(0) @ place
        return total.reshape(1)

    return BatchLoss(mean, Measure(example_sums, mean_of_split))
