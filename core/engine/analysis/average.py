"""The average of weights against the average of their predictions; see core.recipe.analyses.average."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import Subject, held, measured, replaced
from core.engine.evaluation.evaluate import judged, predicted
from core.engine.networks.network import Network
from core.engine.weights.ensemble import MIXTURES
from core.recipe.analyses import Split
from core.recipe.analyses.average import Average


def explore(spec: Average, subjects: Sequence[Subject], desk: AnalysisProgress) -> Tensors:
    """`metrics` float64 (subjects + 2, parts, metrics): each subject, the mean of weights, that of predictions."""
    first, splits, names = subjects[0], held(subjects[0]), measured(subjects[0])
    table = torch.full((len(subjects) + 2, len(splits), len(names)), math.nan, dtype=torch.float64)
    mixtures = {split: MIXTURES[first.spec.data.facts().task]() for split in splits}

    def note(row: int, network: Network) -> Iterator[tuple[Split, Tensor]]:
        for column, split in enumerate(splits):
            outputs = predicted(network, first.parts[split])
            found = judged(outputs, first.parts[split], first.objective)
            table[row, column] = torch.tensor([found[name] for name in names], dtype=torch.float64)
            yield split, outputs

    weights = torch.stack([each.network.values for each in subjects]).double().mean(0)
    for row, subject in enumerate(subjects):
        for split, outputs in note(row, subject.network):
            mixtures[split].add(outputs)
        desk.keep(row + 1, len(table), {"metrics": table})
    with replaced(first, weights) as network:
        list(note(len(subjects), network))
    desk.keep(len(subjects) + 1, len(table), {"metrics": table})
    for column, split in enumerate(splits):
        found = judged(mixtures[split].outputs(), first.parts[split], first.objective)
        table[-1, column] = torch.tensor([found[name] for name in names], dtype=torch.float64)
    desk.keep(len(table), len(table), {"metrics": table})
    return {"metrics": table}


def report(spec: Average, subjects: Sequence[Subject], tensors: Tensors) -> dict[str, Any]:
    """`members`, `average` (of weights) and `ensemble` (of predictions), each split by split, of so many `examples`."""
    splits, names = held(subjects[0]), measured(subjects[0])
    rows = [
        {split: dict(zip(names, row[column].tolist(), strict=True)) for column, split in enumerate(splits)}
        for row in tensors["metrics"]
    ]
    labels = [subject.label for subject in subjects]
    members = [{"label": label, **row} for label, row in zip(labels, rows, strict=False)]
    examples = {split: len(subjects[0].parts[split]) for split in splits}
    return {"examples": examples, "members": members, "average": rows[-2], "ensemble": rows[-1]}
