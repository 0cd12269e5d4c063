"""Loss and metrics over a grid of points on a line or in a plane of weights, tile by tile."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.directions import direction_cosine
from core.engine.analysis.evaluate_weights import WeightsEvaluator
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import AnalysisSubject, metric_names
from core.engine.networks.norms import running_norms
from core.recipe.analyses import SplitName
from core.recipe.analyses.grid_options import MOST_NUMBERS, MOST_POINTS, BatchNorm
from core.recipe.analyses.landscape import Shard

AXES: Final = ("x", "y")
WORK: Final = 5e9  # multiply-adds in a tile: about a tenth of a second on one core


@dataclass(frozen=True, slots=True)
class WeightGrid:
    """The points origin + x directions[0] + y directions[1]: (P,), (A, P), and float64 places along each axis."""

    origin: Tensor
    directions: Tensor
    places: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(x,) or (y, x): the value at y[r], x[c] is in row r and column c."""
        return tuple(len(each) for each in reversed(self.places))

    @property
    def point_count(self) -> int:
        return math.prod(self.shape)

    def point_coordinates(self, first: int, last: int) -> Tensor:
        """The coordinates of the points first … last - 1, row by row: float64 (K, A)."""
        found = torch.unravel_index(torch.arange(first, last), self.shape)
        return torch.stack([axis[each] for axis, each in zip(self.places, reversed(found), strict=True)], 1)

    def point_weights(self, first: int, last: int) -> Tensor:
        """The weights of the points first … last - 1: (K, P)."""
        return torch.addmm(self.origin, self.point_coordinates(first, last).to(self.origin), self.directions)


def blank_surfaces(judge: WeightsEvaluator, shape: tuple[int, ...]) -> Tensors:
    """For each split and metric a float64 tensor of the shape; NaN is not computed."""
    names = [f"{split}.{name}" for split in judge.splits for name in judge.names]
    return {name: torch.full(shape, math.nan, dtype=torch.float64) for name in names}


def record_values(judge: WeightsEvaluator, tensors: Mapping[str, Tensor], place: slice, values: Tensor) -> None:
    """Write values (K, splits, metrics) to flat places of tensors made by `blank_surfaces`."""
    for row, split in enumerate(judge.splits):
        for column, name in enumerate(judge.names):
            tensors[f"{split}.{name}"].view(-1)[place] = values[:, row, column]


def points_in_tile(judge: WeightsEvaluator) -> int:
    """Points in a tile: few enough that a tile fits in memory and a cancelled analysis ends within about 0.1 s."""
    spec, parts = judge.subject.spec, judge.subject.parts
    examples = sum(len(parts[split]) for split in judge.splits) + judge.reestimate * len(parts["train"])
    work = examples * spec.model.multiply_adds(spec.data.facts())
    return max(1, min(MOST_POINTS, MOST_NUMBERS // len(judge.subject.network.values), int(WORK / max(1, work))))


def tile_count(judge: WeightsEvaluator, plane: WeightGrid) -> int:
    """The number of tiles of a plane."""
    return -(-plane.point_count // points_in_tile(judge))


def compute_grid(  # noqa: PLR0913, PLR0917 - what is computed, the destination, and the share
    judge: WeightsEvaluator,
    plane: WeightGrid,
    analysis_progress: AnalysisProgress,
    tensors: Tensors,
    before: int = 0,
    part: Shard | None = None,
) -> None:
    """Fill the surfaces of `blank_surfaces` in `tensors`, from the first tile that is not done.

    `before` tiles of other work are done first. `computed` () counts points. The tiles of a plane are always the same,
    so that each tile has the same bits in every attempt and every part. The tiles of a part are spread over the whole
    plane; it has none if there are more parts than tiles.
    """
    size, count = points_in_tile(judge), tile_count(judge, plane)
    own = range(part.number - 1, count, part.of) if part else range(count)
    for done, tile in list(enumerate(own, 1))[max(0, analysis_progress.done - before) :]:
        first, last = tile * size, min((tile + 1) * size, plane.point_count)
        record_values(judge, tensors, slice(first, last), judge.evaluate_weights(plane.point_weights(first, last)))
        tensors["computed"].add_(last - first)
        analysis_progress.keep(before + done, before + len(own), tensors)
    if not own:
        analysis_progress.keep(before, before, tensors)


def grid_tensors(judge: WeightsEvaluator, plane: WeightGrid) -> Tensors:
    """The tensors known before the first point: places, norms (A,) and cosine () of the directions, `computed` 0."""
    lengths = torch.linalg.vector_norm(plane.directions.double(), dim=1)
    angle = {"cosine": direction_cosine(plane.directions)} if len(lengths) > 1 else {}
    computed = torch.tensor(0)
    return {**dict(zip(AXES, plane.places, strict=False)), "norms": lengths, **angle, "computed": computed}


def grid_caption(
    subject: AnalysisSubject, splits: tuple[SplitName, ...], batch_norm: BatchNorm, tensors: Tensors
) -> dict[str, Any]:
    """The caption of every picture of a grid: axes, subject, computed points, and the lowest point."""
    axes = [tensors[name] for name in AXES if name in tensors]
    return {
        "axes": [
            {"range": [float(each[0]), float(each[-1])], "steps": len(each), "norm": length}
            for each, length in zip(axes, tensors["norms"].tolist(), strict=False)
        ],
        "cosine": float(tensors["cosine"]) if "cosine" in tensors else None,
        **subject_caption(subject, splits, batch_norm),
        "points": math.prod(len(each) for each in axes) if axes else 0,
        "computed": int(tensors["computed"]),
        "surface": {split: surface_extremes(tensors[f"{split}.loss"], axes) for split in splits} if axes else {},
    }


def subject_caption(subject: AnalysisSubject, splits: tuple[SplitName, ...], batch_norm: BatchNorm) -> dict[str, Any]:
    """Splits and their sizes, metrics, the number of weights, and the handling of batch norm (None without any)."""
    return {
        "splits": list(splits),
        "examples": {split: len(subject.parts[split]) for split in splits},
        "metrics": metric_names(subject),
        "parameters": len(subject.network.values),
        "bn": batch_norm if running_norms(subject.network.module) else None,
    }


def subject_positions(subjects: Sequence[AnalysisSubject], at: Tensor, off: Tensor) -> list[dict[str, Any]]:
    """Each subject with its coordinates `at` (subjects, A) and its distance `off` the plane (subjects,)."""
    return [
        {**subject_identity(subject), "at": place, "off": distance}
        for subject, place, distance in zip(subjects, at.tolist(), off.tolist(), strict=True)
    ]


def subject_identity(subject: AnalysisSubject) -> dict[str, Any]:
    """The origin of the weights, for a caption."""
    source = subject.source
    return {
        "label": subject.label,
        "job": source.job,
        "checkpoint": source.checkpoint,
        "kind": source.kind,
        "step": source.step,
        "seed": subject.spec.seed,
    }


def metrics_by_split(
    subject: AnalysisSubject, splits: tuple[SplitName, ...], values: Tensor
) -> dict[str, dict[str, float]]:
    """Values (splits, metrics) by their names."""
    names = metric_names(subject)
    return {split: dict(zip(names, row.tolist(), strict=True)) for split, row in zip(splits, values, strict=True)}


def surface_extremes(surface: Tensor, axes: Sequence[Tensor]) -> dict[str, Any] | None:
    """The lowest and the highest finite value of a surface and the place of the lowest; None without finite values."""
    finite = surface.isfinite()
    if not finite.any():
        return None
    low = torch.where(finite, surface, math.inf)
    found = torch.unravel_index(low.argmin(), surface.shape)
    at = [float(axis[each]) for axis, each in zip(axes, reversed(found), strict=True)]
    return {"lowest": float(low.min()), "at": at, "highest": float(torch.where(finite, surface, -math.inf).max())}
