"""Subjects in float64 with random weights, and what a plain loop through their module says of other weights."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.analysis.subject import AnalysisSubject
from core.engine.datasets.resident import TensorSplit, load_resident
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.evaluation.objective import build_objective
from core.engine.networks.network import build_network, flatten
from core.recipe.analyses import SplitName
from core.recipe.assignment import Source
from core.recipe.spec import JobSpec
from tests.train.looks import JOB

CPU = torch.device("cpu")


def subject(spec: JobSpec, dataset: Path, dtype: torch.dtype = torch.float64, label: str = "a") -> AnalysisSubject:
    """One of the job's seed; batch norm has seen some data, with scales and shifts that are not those of the start."""
    data = load_resident(spec.data, dataset, CPU)
    built = build_network(spec.model, spec.data.facts(), spec.seed, CPU)
    network = flatten(built.module.to(dtype), roles=built.roles)
    draw = torch.Generator().manual_seed(spec.seed)
    network.values.add_(0.2 * torch.randn(len(network.values), generator=draw, dtype=torch.float64).to(dtype))
    with torch.no_grad():
        network.module.train()(data.train.inputs.to(dtype) * 1.5 + 0.3)
    network.module.eval()

    def part(found: TensorSplit) -> TensorSplit:
        targets = found.targets.to(dtype) if found.targets.is_floating_point() else found.targets
        return TensorSplit(found.inputs.to(dtype), targets)

    parts: Any = {"train": part(data.train), "val": part(data.validation), "test": part(data.test)}
    source = Source(label=label, job=JOB, spec=spec, dataset=dataset)
    small = replace(network, most_at_once=100)  # so that parts fall into blocks
    return AnalysisSubject(source, spec, small, parts, build_objective(spec, data.target_scale))


def naive(
    looked: AnalysisSubject,
    weights: Sequence[Tensor],
    splits: Sequence[SplitName],
    *,
    reestimate: bool = False,
    statistics: Sequence[Sequence[Tensor]] | None = None,
) -> Tensor:
    """Loss and accuracy (K, splits, 2): weights into the module one after the other, the whole part through it."""
    network, before = looked.network, looked.network.module.state_dict()
    before = {name: each.clone() for name, each in before.items()}
    found = []
    for number, each in enumerate(weights):
        network.values.copy_(each)
        for own, other in zip(network.buffers, statistics[number] if statistics else (), strict=False):
            own.copy_(other)
        if reestimate:
            reestimate_batch_norm(network, looked.parts["train"], looked.spec.shape().batch)
        with torch.no_grad():
            outputs = [network.module(looked.parts[split].whole()[0]) for split in splits]
        targets = [looked.parts[split].targets for split in splits]
        found.append(
            [
                [float(functional.cross_entropy(each, own)), float((each.argmax(1) == own).double().mean())]
                for each, own in zip(outputs, targets, strict=True)
            ]
        )
        network.module.load_state_dict(before)
    return torch.tensor(found, dtype=torch.float64)
