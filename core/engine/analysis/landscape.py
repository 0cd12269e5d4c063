"""The loss around weights, along one or two directions; see core.recipe.analyses.landscape."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.curvature import leading_eigenpairs
from core.engine.analysis.directions import (
    axis_places,
    directions_between,
    normalise_direction,
    padded_range,
    principal_directions,
    project_moves,
    random_direction,
    weights_fingerprint,
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
from core.recipe.analyses.landscape import Landscape

MARGIN: Final = 0.25  # of the checkpoints' extent, on each side
RANGES: Final = {"random": (-1.0, 1.0), "eigen": (-1.0, 1.0), "between": (-0.5, 1.5)}


def compute_tensors(
    spec: Landscape, subjects: Sequence[AnalysisSubject], analysis_progress: AnalysisProgress
) -> Tensors:
    """`x` (and `y`): the places along the directions; `train.loss` and other metrics: float64 (x,) or (y, x).

    `centre` (splits, metrics) are the metrics of the weights with their own running statistics. `norms` (A,) and
    `cosine` () describe the directions. `at` (subjects, A) are the coordinates of the subjects, `off` (subjects,) their
    distances to the plane. Eigenvectors have `eigenvalues` (A,). A part has the `fingerprint` (1 + A, 4) of weights and
    directions, by which an assembly checks that parts fit.
    """
    first = subjects[0]
    judge = WeightsEvaluator.for_subject(first, spec.splits, reestimate=spec.batch_norm() == "reestimate")
    directions, values = directions_of(spec, subjects)
    at, off = project_moves(torch.stack([each.network.values - first.network.values for each in subjects]), directions)
    ranges = [spec.range or RANGES.get(spec.directions) or padded_range(each, MARGIN) for each in at.T]
    plane = WeightGrid(
        first.network.values.clone(), directions, tuple(axis_places(each, spec.steps_each()) for each in ranges)
    )
    tensors = {
        **grid_tensors(judge, plane),
        **blank_surfaces(judge, plane.shape),
        "centre": judge.own_metrics(),
        "at": at,
        "off": off,
    }
    tensors |= {} if values is None else {"eigenvalues": values}
    tensors |= {"fingerprint": weights_fingerprint(torch.cat([plane.origin[None], directions]))} if spec.part else {}
    tensors |= analysis_progress.found
    compute_grid(judge, plane, analysis_progress, tensors, part=spec.part)
    return tensors


def directions_of(spec: Landscape, subjects: Sequence[AnalysisSubject]) -> tuple[Tensor, Tensor | None]:
    """Directions (A, P), and eigenvalues (A,) of eigenvectors. Raises EngineError if the weights span fewer than A."""
    first, values = subjects[0], None
    weights = [each.network.values for each in subjects]
    if spec.directions == "random":
        norm = spec.norm_for(first.spec)
        drawn = [random_direction(first.network, spec.seed, number) for number in range(spec.dimensions)]
        found = torch.stack([normalise_direction(first.network, each, norm, spec.ignore) for each in drawn])
    elif spec.directions == "eigen":
        values, found = leading_eigenpairs(first, first.parts["train"], spec.dimensions, spec.seed)
    elif spec.directions == "between":
        found = directions_between(weights)
    else:
        found, _ = principal_directions(torch.stack([each - weights[0] for each in weights[1:]]), spec.dimensions)
    if len(found) < spec.dimensions or not bool(torch.linalg.vector_norm(found, dim=1).all()):
        message = f"these weights do not give {spec.dimensions} directions: they are zero, equal, or on one line"
        raise EngineError("engine_error", message, "Take other checkpoints, or other directions.")
    return found, values


def report_numbers(spec: Landscape, subjects: Sequence[AnalysisSubject], tensors: Tensors) -> dict[str, Any]:
    """The numbers of a caption: the directions and their origin, the subject, the centre and the lowest point."""
    first, values = subjects[0], tensors.get("eigenvalues")
    return {
        "dimensions": spec.dimensions,
        "directions": spec.directions,
        "norm": spec.norm_for(first.spec),
        "ignore": spec.ignore if spec.directions == "random" else "nothing",
        "seed": spec.seed,
        "eigenvalues": None if values is None else values.tolist(),
        "part": spec.part.dump() if spec.part else None,
        **grid_caption(first, spec.splits, spec.batch_norm(), tensors),
        "centre": metrics_by_split(first, spec.splits, tensors["centre"]),
        "subjects": subject_positions(subjects, tensors["at"], tensors["off"]),
    }
