"""The path of a run, in the plane of its largest moves (PCA); see core.recipe.analyses.trajectory."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.directions import (
    axis_places,
    centred_shares,
    normalise_direction,
    padded_range,
    principal_directions,
    project_moves,
    random_direction,
)
from core.engine.analysis.evaluate_weights import WeightsEvaluator
from core.engine.analysis.grid import (
    WeightGrid,
    blank_surfaces,
    compute_grid,
    grid_caption,
    grid_tensors,
    metrics_by_split,
    subject_positions,
)
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject
from core.engine.failure import EngineError
from core.recipe.analyses.grid_options import Norm
from core.recipe.analyses.trajectory import Trajectory

AVERAGED: Final = frozenset({"swa", "ema"})


def compute_tensors(
    spec: Trajectory, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """The arrays of a landscape around the last weights of the path (`x`, `y`, `train.loss` (y, x) …) if `steps` > 0.

    `at` (subjects, A), `off` (subjects,) and `values` (subjects, splits, metrics) describe the checkpoints, `values`
    with their own running statistics. `shares` and `centred` are the shares of each principal direction in the squares.
    """
    followed = path_indices(subjects)
    end = subjects[followed[-1]]
    judge = WeightsEvaluator.for_subject(end, spec.splits, reestimate=spec.bn == "reestimate")
    moves = torch.stack([each.network.values - end.network.values for each in subjects])
    directions, shares = directions_of(spec, end, moves[followed[:-1]])
    at, off = project_moves(moves, directions)
    places = tuple(axis_places(padded_range(each, spec.margin), spec.steps) for each in at.T) if spec.steps else ()
    plane = WeightGrid(end.network.values.clone(), directions, places)
    tensors = {**grid_tensors(judge, plane), **shares, "at": at, "off": off}
    tensors |= {
        "values": torch.stack(
            [WeightsEvaluator.for_subject(each, spec.splits, reestimate=False).own_metrics() for each in subjects]
        )
    }
    tensors |= blank_surfaces(judge, plane.shape) if spec.steps else {}
    tensors |= analysis_progress.found
    if spec.steps:
        compute_grid(judge, plane, analysis_progress, tensors)
    else:
        analysis_progress.keep(1, 1, tensors)
    return tensors


def path_indices(subjects: Sequence[AnalysisSubject]) -> list[int]:
    """The indices of the subjects on the path, averages left out. Raises EngineError if there are fewer than two."""
    found = [number for number, each in enumerate(subjects) if each.source.kind not in AVERAGED]
    if len(found) < 2:
        remedy = 'Train with more checkpoints on the way: "checkpoints": {"every": "1ep", "keep_last": 50}.'
        raise EngineError("engine_error", f"a way needs two checkpoints, and the job has kept {len(found)}", remedy)
    return found


def directions_of(spec: Trajectory, end: AnalysisSubject, moves: Tensor) -> tuple[Tensor, Tensors]:
    """Directions (A, P) and their shares; A = 2 unless the path is a line or there is only one weight.

    Raises EngineError if the weights do not move.
    """
    if not bool(moves.any()):
        raise EngineError("engine_error", "the weights do not move at all", "Look at a job that trains.")
    found, shares = principal_directions(moves, 2)
    if spec.directions == "pca":
        return found, {"shares": shares, "centred": centred_shares(moves)}
    norm: Norm = "filter" if end.spec.model.filters else "none"
    drawn = [random_direction(end.network, spec.seed, number) for number in range(min(2, moves.shape[1]))]
    return torch.stack([normalise_direction(end.network, each, norm, "biasbn") for each in drawn]), {}


def report_numbers(spec: Trajectory, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """`path`: the coordinates of each checkpoint, its distance to the plane, and its loss; `averages` likewise.

    `explained` is the share of each principal direction in the squared distances from the last weights, `centred` in
    those from the mean, as in a PCA of scikit-learn.
    """
    followed = set(path_indices(subjects))
    end = subjects[max(followed)]
    stood = [
        {**place, **metrics_by_split(end, spec.splits, values)}
        for place, values in zip(
            subject_positions(subjects, tensors["at"], tensors["off"]), tensors["values"], strict=True
        )
    ]
    count = tensors["at"].shape[1]
    return {
        "directions": spec.directions,
        "norm": "filter" if spec.directions == "random" and end.spec.model.filters else "none",
        "seed": spec.seed,
        "explained": tensors["shares"][:count].tolist() if "shares" in tensors else None,
        "centred": tensors["centred"][:count].tolist() if "centred" in tensors else None,
        **grid_caption(end, spec.splits, spec.bn, tensors),
        "path": [each for number, each in enumerate(stood) if number in followed],
        "averages": [each for number, each in enumerate(stood) if number not in followed],
    }
