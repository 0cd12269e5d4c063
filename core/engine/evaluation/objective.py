"""The loss of a step and the metrics of an evaluation, by task. All are weighted by examples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.datasets.split import Split
from core.engine.datasets.standardizer import Standardizer
from core.recipe.data import Function
from core.recipe.spec import JobSpec

Loss = Callable[[Tensor, Tensor], Tensor]


class Objective(Protocol):
    """`example_sums` adds up over examples what `metrics_from_sums` turns into means: chunk sizes do not matter.

    All values that an evaluation reads from the device are in these sums: it makes one transfer.
    """

    @property
    def loss(self) -> Loss:
        """Mean loss of a batch: outputs (b, outputs), targets -> scalar."""

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Sums over the examples of a chunk: float64 (k,)."""

    def split_constants(self, part: Split) -> Tensor:
        """What else `metrics_from_sums` needs of a whole split, the same for all outputs: float64 (m,)."""

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        """Loss and metrics of a whole split, from its sums followed by its constants."""


@dataclass(frozen=True, slots=True)
class Classification:
    """Cross-entropy of softmax outputs; accuracy is the share of examples whose largest output is their class.

    Only the training `loss` may smooth labels; evaluations always report the cross-entropy of the true classes.
    """

    metrics: tuple[str, ...]
    loss: Loss = functional.cross_entropy

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        losses = functional.cross_entropy(outputs, targets, reduction="none").double().sum()
        return torch.stack([losses, (outputs.argmax(1) == targets).double().sum()])

    def split_constants(self, part: Split) -> Tensor:
        return no_constants(part)

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        values = {"loss": sums[0] / len(part), "accuracy": sums[1] / len(part)}
        return {name: values[name] for name in ("loss", *self.metrics)}


@dataclass(frozen=True, slots=True)
class Regression:
    """Mean squared error of the standardised targets; mae is in the data's own units, r2 has none.

    r2 = 1 - sum of squared errors / sum of squared deviations; of constant targets it is 1 when exact, else 0.
    """

    metrics: tuple[str, ...]
    scale: Standardizer | None
    loss: Loss = functional.mse_loss

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        errors = outputs.double() - targets.double()
        own_units = errors * self.scale.std.double().to(errors.device) if self.scale else errors
        return torch.stack([errors.square().sum(), own_units.abs().sum(), own_units.square().sum()])

    def split_constants(self, part: Split) -> Tensor:
        """The sum of squared deviations, in the data's own units."""
        targets = part.targets.double()
        deviations = targets - targets.mean(0)
        if self.scale:
            deviations = deviations * self.scale.std.double().to(deviations.device)
        return deviations.square().sum().reshape(1)

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        total, numbers = sums[3], part.targets.numel()
        r2 = 1 - sums[2] / total if total > 0 else float(sums[2] == 0)
        values = {"loss": sums[0] / numbers, "mae": sums[1] / numbers, "r2": r2}
        return {name: values[name] for name in ("loss", *self.metrics)}


@dataclass(frozen=True, slots=True)
class FunctionObjective:
    """f(x) plus a linear term per example; outputs are the same point x in all rows (b, dimension), targets the a_i.

    Sums of a_i are exact in double, so that over all examples they are exactly 0.
    """

    function: Callable[..., Tensor]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """f(x) + mean of a_i · x."""
        place = outputs[0]
        slope = targets.mean(0, dtype=torch.float64).to(place.dtype)
        return self.function(*place.unbind()) + slope @ place

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The sum of f(x) + a_i · x over the examples, float64 (1,)."""
        place = outputs[0].double()
        return (len(targets) * self.function(*place.unbind()) + targets.double().sum(0) @ place).reshape(1)

    def split_constants(self, part: Split) -> Tensor:
        return no_constants(part)

    def metrics_from_sums(self, sums: list[float], part: Split) -> dict[str, float]:
        """The mean over a whole split."""
        return {"loss": sums[0] / len(part)}


def no_constants(part: Split) -> Tensor:
    """No constants: float64 (0,)."""
    return torch.empty(0, dtype=torch.float64, device=part.targets.device)


def build_objective(spec: JobSpec, target_scale: Standardizer | None) -> Objective:
    """The objective of a resolved spec."""
    metrics = tuple(spec.metrics or ())
    if isinstance(spec.data, Function):
        return FunctionObjective(spec.data.value_at)
    if spec.data.facts().task == "classification":
        smoothed = partial(functional.cross_entropy, label_smoothing=spec.label_smoothing)
        return Classification(metrics, smoothed) if spec.label_smoothing else Classification(metrics)
    return Regression(metrics, target_scale)
