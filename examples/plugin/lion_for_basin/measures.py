"""The loss `poly1` and the metric `confident_accuracy`."""

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.evaluation.measure import ExampleValues, MeasureInputs
from lion_for_basin.specs import ConfidentAccuracy, Poly1


def build_poly1(spec: Poly1, inputs: MeasureInputs) -> ExampleValues:
    """The loss of each example: outputs (b, classes), targets int64 (b,) -> (b,)."""
    del inputs

    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        losses = functional.cross_entropy(outputs, targets, reduction="none")
        return losses + spec.epsilon * (1 - torch.exp(-losses))

    return values


def build_confident_accuracy(spec: ConfidentAccuracy, inputs: MeasureInputs) -> ExampleValues:
    """Whether each example counts: outputs (b, classes), targets int64 (b,) -> bool (b,)."""
    del inputs

    def values(outputs: Tensor, targets: Tensor) -> Tensor:
        probabilities = torch.softmax(outputs.double(), 1)
        return probabilities.gather(1, targets[:, None]).squeeze(1) >= spec.above

    return values
