"""The loss on the straight line between weights; see core.recipe.analyses.interpolation."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.directions import axis_places, direction_cosine
from core.engine.analysis.evaluate_weights import WeightsEvaluator, one_by_one, split_metrics
from core.engine.analysis.grid import (
    blank_surfaces,
    metrics_by_split,
    points_in_tile,
    record_values,
    subject_caption,
    subject_identity,
)
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.networks.network import Network
from core.recipe.analyses.interpolation import Interpolation

ENDS: Final = (0.0, 1.0)
NEAR: Final = 1e-12  # of the range


def compute_tensors(
    spec: Interpolation, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """`alpha` float64 (a,): the requested places, and 0 and 1; `train.loss` and other metrics float64 (pairs, a).

    `own` (subjects, splits, metrics) are the metrics of each subject with its own running statistics.
    """
    first = subjects[0]
    judge = WeightsEvaluator.for_subject(first, spec.splits_of(first.spec), reestimate=spec.bn == "reestimate")
    alphas = analysis_progress.found.get(
        "alpha", torch.tensor(sorted({*requested_places(spec), *ENDS}), dtype=torch.float64)
    )
    shape, size = (len(subjects) - 1, len(alphas)), points_in_tile(judge)
    tensors = {
        "alpha": alphas,
        **blank_surfaces(judge, shape),
        "own": own_metrics(judge, subjects),
        **analysis_progress.found,
    }
    tiles = [(pair, start) for pair in range(shape[0]) for start in range(0, shape[1], size)]
    for number, (pair, start) in list(enumerate(tiles))[analysis_progress.done :]:
        some = alphas[start : start + size]
        place = slice(pair * shape[1] + start, pair * shape[1] + start + len(some))
        record_values(judge, tensors, place, evaluate_between(judge, spec, subjects[pair : pair + 2], some))
        analysis_progress.keep(number + 1, len(tiles), tensors)
    return tensors


def requested_places(spec: Interpolation) -> list[float]:
    """The `steps` places of the range; a place that differs from an end (0 or 1) only by rounding is that end."""
    near = NEAR * (spec.range[1] - spec.range[0])
    return [
        next((end for end in ENDS if abs(place - end) <= near), place)
        for place in axis_places(spec.range, spec.steps).tolist()
    ]


def own_metrics(judge: WeightsEvaluator, subjects: Sequence[AnalysisSubject]) -> Tensor:
    """The metrics of each subject, float64 (subjects, splits, metrics), all on the first one's data."""
    rows = [[split_metrics(judge, each.network, split) for split in judge.splits] for each in subjects]
    return torch.stack([torch.stack(row) for row in rows])


def evaluate_between(
    judge: WeightsEvaluator, spec: Interpolation, ends: Sequence[AnalysisSubject], alphas: Tensor
) -> Tensor:
    """Metrics (K, splits, metrics) at (1 - a) v + a w, for `alphas` (K,)."""
    first, second = (each.network for each in ends)
    weights = torch.stack([interpolate_tensors(first.values, second.values, alpha) for alpha in alphas.tolist()])
    if spec.bn == "reestimate" or not first.buffers:
        return judge.evaluate_weights(weights)
    return one_by_one(judge, weights, [interpolate_bn_stats(first, second, alpha) for alpha in alphas.tolist()])


def interpolate_tensors(first: Tensor, second: Tensor, alpha: float) -> Tensor:
    """(1 - alpha) first + alpha second; exact to the bit at alpha 0 and 1."""
    return (1 - alpha) * first + alpha * second


def interpolate_bn_stats(first: Network, second: Network, alpha: float) -> list[Tensor]:
    """The interpolated buffers of batch norm; num_batches_tracked is that of the first network."""
    pairs = zip(first.module.named_buffers(), second.buffers, strict=True)
    found = [
        (name, interpolate_tensors(own, other, alpha) if own.is_floating_point() else own)
        for (name, own), other in pairs
    ]
    return [each.clamp(min=0) if name.endswith("running_var") else each for name, each in found]


def report_numbers(spec: Interpolation, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """For each pair of neighbours the barriers, the distance of the weights and their cosine.

    `places` counts the requested `steps` and those `added`: ends that are not among them.
    """
    first, splits = subjects[0], spec.splits_of(subjects[0].spec)
    own = [
        {**subject_identity(each), **metrics_by_split(first, splits, row)}
        for each, row in zip(subjects, tensors["own"], strict=True)
    ]
    pairs = [
        {
            "from": before.label,
            "to": after.label,
            "same_seed": before.spec.seed == after.spec.seed,
            "distance": float(torch.linalg.vector_norm((after.network.values - before.network.values).double())),
            "cosine": float(direction_cosine(torch.stack([before.network.values, after.network.values]))),
            "barrier": {split: find_barrier(tensors["alpha"], tensors[f"{split}.loss"][row]) for split in splits},
        }
        for row, (before, after) in enumerate(pairwise(subjects))
    ]
    there, wanted = tensors["alpha"].tolist(), set(requested_places(spec))
    return {
        **subject_caption(first, splits, spec.bn),
        "range": list(spec.range),
        "steps": spec.steps,
        "places": len(there),
        "added": [place for place in there if place not in wanted],
        "subjects": own,
        "pairs": pairs,
    }


def find_barrier(alphas: Tensor, losses: Tensor) -> dict[str, float] | None:
    """The largest height of losses (a,) above the line between those at 0 and 1, and its place; None if any is missing.

    Two ends that are lower than all between them have a barrier; two on one slope have none: 0.
    """
    inside = (alphas >= 0) & (alphas <= 1)
    where, heights = alphas[inside], losses[inside]
    if not bool(heights.isfinite().all()):
        return None
    above = heights - ((1 - where) * heights[0] + where * heights[-1])
    most = int(above.argmax())
    return {"height": float(above[most]), "alpha": float(where[most]), "loss": float(heights[most])}
