"""The average of weights against the average of their predictions; see core.recipe.analyses.average."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject, metric_names, nonempty_splits, replaced_weights
from core.engine.evaluation.evaluate import compute_metrics, predict_split
from core.engine.networks.network import Network
from core.engine.weights.ensemble import MIXTURES
from core.recipe.analyses import SplitName
from core.recipe.analyses.average import Average


def compute_tensors(spec: Average, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress) -> Tensors:
    """`metrics` float64 (subjects + 2, splits, metrics): each subject, the mean of weights, the mean of predictions."""
    first, splits, names = subjects[0], nonempty_splits(subjects[0]), metric_names(subjects[0])
    table = torch.full((len(subjects) + 2, len(splits), len(names)), math.nan, dtype=torch.float64)
    mixtures = {split: MIXTURES[first.spec.data.facts().task]() for split in splits}

    def record_metrics(row: int, network: Network) -> Iterator[tuple[SplitName, Tensor]]:
        for column, split in enumerate(splits):
            outputs = predict_split(network, first.parts[split])
            found = compute_metrics(outputs, first.parts[split], first.objective)
            table[row, column] = torch.tensor([found[name] for name in names], dtype=torch.float64)
            yield split, outputs

    weights = torch.stack([each.network.values for each in subjects]).double().mean(0)
    for row, subject in enumerate(subjects):
        for split, outputs in record_metrics(row, subject.network):
            mixtures[split].add_member(outputs)
        analysis_progress.keep(row + 1, len(table), {"metrics": table})
    with replaced_weights(first, weights) as network:
        list(record_metrics(len(subjects), network))
    analysis_progress.keep(len(subjects) + 1, len(table), {"metrics": table})
    for column, split in enumerate(splits):
        found = compute_metrics(mixtures[split].mean_outputs(), first.parts[split], first.objective)
        table[-1, column] = torch.tensor([found[name] for name in names], dtype=torch.float64)
    analysis_progress.keep(len(table), len(table), {"metrics": table})
    return {"metrics": table}


def report_numbers(spec: Average, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`members`, `average` (of weights) and `ensemble` (of predictions), each by split; `examples` counts per split."""
    splits, names = nonempty_splits(subjects[0]), metric_names(subjects[0])
    rows = [
        {split: dict(zip(names, row[column].tolist(), strict=True)) for column, split in enumerate(splits)}
        for row in tensors["metrics"]
    ]
    labels = [subject.label for subject in subjects]
    members = [{"label": label, **row} for label, row in zip(labels, rows, strict=False)]
    examples = {split: len(subjects[0].parts[split]) for split in splits}
    return {"examples": examples, "members": members, "average": rows[-2], "ensemble": rows[-1]}
