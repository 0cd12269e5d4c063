"""Subjects of a few weights in float64, whose derivatives are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.engine.analysis.subject import AnalysisSubject
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.objective import Classification, Loss, Objective
from core.engine.networks.network import flatten
from core.recipe.assignment import Source
from core.recipe.spec import JobSpec
from tests.train.looks import JOB
from tests.train.runs import job


class Bench:
    """A desk on which everything is new and nobody interrupts."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}
        self.done = 0
        self.warned: list[str] = []

    def keep(self, done: int, total: int, tensors: Mapping[str, Tensor]) -> None:
        assert done == self.done + 1
        assert done <= total
        self.done = done

    def warn(self, message: str) -> None:
        self.warned.append(message)


@dataclass(frozen=True)
class Plain:
    """An objective that is nothing but its loss."""

    loss: Loss

    def example_sums(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (self.loss(outputs, targets).double() * len(targets)).reshape(1)

    def split_constants(self, part: TensorSplit) -> Tensor:
        return torch.empty(0, dtype=torch.float64)

    def metrics_from_sums(self, sums: list[float], part: TensorSplit) -> dict[str, float]:
        return {"loss": sums[0] / len(part)}


class Place(nn.Module):
    """Answers every input with the same place (b, P)."""

    def __init__(self, start: list[float]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.place.expand(len(inputs), -1)


def subject(
    module: nn.Sequential, train: TensorSplit, objective: Objective, spec: JobSpec | None = None, label: str = "tiny"
) -> AnalysisSubject:
    """One in evaluation mode, with a train part only."""
    spec = spec or job()
    module.eval()
    nothing = TensorSplit(train.inputs[:0], train.targets[:0])
    source = Source(label=label, job=JOB, spec=spec, dataset=Path())
    return AnalysisSubject(source, spec, flatten(module), {"train": train, "val": nothing, "test": nothing}, objective)


def at(start: list[float], value: Any, examples: int = 7) -> AnalysisSubject:
    """A place in the domain of `value`, a function of a tensor (P,)."""
    train = TensorSplit(torch.zeros(examples, 0, dtype=torch.float64), torch.zeros(examples, 1, dtype=torch.float64))
    return subject(nn.Sequential(Place(start)), train, Plain(lambda outputs, _: value(outputs[0])))


def classifier(
    *, batch_norm: bool = False, convolution: bool = False, examples: int = 50, seed: int = 0
) -> AnalysisSubject:
    """A small network with random weights on random data, three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        first: list[nn.Module] = [nn.Linear(16, 5)]
        if convolution:
            planes = [nn.BatchNorm2d(3)] if batch_norm else []
            halved = [nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
            first = [nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3, padding=1), *planes, *halved]
        width = 12 if convolution else 5
        norm = [nn.BatchNorm1d(width)] if batch_norm else []
        module = nn.Sequential(*first, *norm, nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 3)).double()
        inputs, targets = torch.randn(examples, 16, dtype=torch.float64), torch.randint(0, 3, (examples,))
        if batch_norm:
            module.train()(3 * inputs + 1)  # running statistics that are not those of the start
    return subject(module, TensorSplit(inputs, targets), Classification(("accuracy",)))
