"""What a loss and a metric are for the engine, and how they add up.

A spec's `implementation` names a builder, build(spec, inputs) -> what this module defines. The simple form is a
function of examples: outputs (b, outputs) and targets -> values (b,), one for each example. The loss of a batch is
then the mean of its values, and so is the number of a split. The full forms are `BatchLoss` for a loss and `Measure`
for a metric.

* Gradient accumulation: the loss of a batch is the mean of its micro-batches, each weighted by its share of the
  examples. So the mean of a batch must be a mean over examples.
* Evaluation: a measure adds up float64 sums over blocks of examples and computes its number from them on the host. An
  evaluation makes one transfer from the device for all of them, so the functions here must not read values of tensors.
* Analyses differentiate the loss twice and compute it for many weights at once (torch.func.grad and vmap), so it is
  made of torch operations alone, without operations in place on its arguments.
* Outputs are those of the network: for a classification unnormalised log-probabilities, of an ensemble the logarithm
  of the mean probabilities. Targets are int64 classes (b,) or standardised float32 numbers (b, outputs).
* Nothing may be drawn from a random generator, and nothing may be kept from call to call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.datasets.standardizer import Standardizer
from core.recipe.spec import JobSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""outputs (b, outputs), targets -> (): the mean loss of a batch, differentiable."""
ExampleValues = Callable[[Tensor, Tensor], Tensor]
"""outputs (b, outputs), targets -> (b,): a number for each example."""


@dataclass(frozen=True, slots=True)
class MeasureInputs:
    """What a builder may use besides the fields of its own spec.

    `target_scale` is what standardised the targets (None: they are in the data's own units). `train_targets` are those
    of the train split, None where no data is loaded.
    """

    job: JobSpec
    target_scale: Standardizer | None = None
    train_targets: Tensor | None = None


def no_constants(part: Split) -> Tensor:
    """No constants: float64 (0,)."""
    return torch.empty(0, dtype=torch.float64, device=part.targets.device)


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a split, from `sums` sums over its examples and `constants` numbers of the split itself."""

    example_sums: Callable[[Tensor, Tensor], Tensor]
    """outputs (b, outputs), targets -> float64 (sums,), of a block of examples."""
    from_sums: Callable[[Sequence[float], Split], float]
    """The sums of the whole split, followed by its constants -> the number."""
    sums: int = 1
    split_constants: Callable[[Split], Tensor] = no_constants
    """What else `from_sums` needs of the split, the same for all outputs: float64 (constants,)."""
    constants: int = 0
    additive: bool = True
    """Whether the sums of blocks may be added up. If not, `example_sums` gets the whole split, as for a ranking."""


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """A loss whose training form and whose evaluation are not both the mean of one function of examples."""

    mean: Loss
    measure: Measure


def mean_of_split(sums: Sequence[float], part: Split) -> float:
    """The first sum divided by the number of examples."""
    return sums[0] / len(part)


def mean_of_targets(sums: Sequence[float], part: Split) -> float:
    """The first sum divided by the number of target values, of which an example may have several."""
    return sums[0] / part.targets.numel()


def measure_examples(values: ExampleValues) -> Measure:
    """The mean of a function over the examples of a split, added up in float64."""

    def example_sums(outputs: Tensor, targets: Tensor) -> Tensor:
        return values(outputs, targets).double().sum().reshape(1)

    return Measure(example_sums, mean_of_split)


def average_examples(values: ExampleValues) -> BatchLoss:
    """The loss of a batch as the mean of a function over its examples."""

    def mean(outputs: Tensor, targets: Tensor) -> Tensor:
        return values(outputs, targets).mean()

    return BatchLoss(mean, measure_examples(values))
