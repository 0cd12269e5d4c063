"""Loss and metrics over a grid of points on a line or in a plane of weights, tile by tile."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.directions import cosine
from core.engine.analysis.evaluate_weights import Judge
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.analysis.subject import Subject, measured
from core.engine.networks.norms import running_norms
from core.recipe.analyses import Split
from core.recipe.analyses.grid_options import MOST_NUMBERS, MOST_POINTS, BatchNorm
from core.recipe.analyses.landscape import Part

AXES: Final = ("x", "y")
WORK: Final = 5e9  # multiply-adds in a tile: about a tenth of a second of a core


@dataclass(frozen=True, slots=True)
class Plane:
    """The points origin + x directions[0] + y directions[1]: (P,), (A, P), and the places along each axis in double."""

    origin: Tensor
    directions: Tensor
    places: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(x,) or (y, x): what stands at y[r], x[c] is in row r and column c."""
        return tuple(len(each) for each in reversed(self.places))

    @property
    def points(self) -> int:
        return math.prod(self.shape)

    def coordinates(self, first: int, last: int) -> Tensor:
        """Of the points first … last - 1, row by row: float64 (K, A)."""
        found = torch.unravel_index(torch.arange(first, last), self.shape)
        return torch.stack([axis[each] for axis, each in zip(self.places, reversed(found), strict=True)], 1)

    def weights(self, first: int, last: int) -> Tensor:
        """(K, P)"""
        return torch.addmm(self.origin, self.coordinates(first, last).to(self.origin), self.directions)


def blank(judge: Judge, shape: tuple[int, ...]) -> Tensors:
    """For each split and metric a float64 tensor of a shape, NaN until something is known."""
    names = [f"{split}.{name}" for split in judge.splits for name in judge.names]
    return {name: torch.full(shape, math.nan, dtype=torch.float64) for name in names}


def note(judge: Judge, tensors: Mapping[str, Tensor], place: slice, values: Tensor) -> None:
    """Put values (K, splits, metrics) to some flat places of tensors made by `blank`."""
    for row, split in enumerate(judge.splits):
        for column, name in enumerate(judge.names):
            tensors[f"{split}.{name}"].view(-1)[place] = values[:, row, column]


def points_in_tile(judge: Judge) -> int:
    """As many as take a moment, for one that is cancelled should end soon, and as fit."""
    spec, parts = judge.subject.spec, judge.subject.parts
    examples = sum(len(parts[split]) for split in judge.splits) + judge.reestimate * len(parts["train"])
    work = examples * spec.model.multiply_adds(spec.data.facts())
    return max(1, min(MOST_POINTS, MOST_NUMBERS // len(judge.subject.network.values), int(WORK / max(1, work))))


def tiles(judge: Judge, plane: Plane) -> int:
    """In how many pieces a plane is surveyed."""
    return -(-plane.points // points_in_tile(judge))


def survey(  # noqa: PLR0913, PLR0917 - what is surveyed, where that is put, and how much of it
    judge: Judge, plane: Plane, desk: AnalysisProgress, tensors: Tensors, before: int = 0, part: Part | None = None
) -> None:
    """Fill the surfaces of `blank` in `tensors`, from the tile on at which the desk stands; `before` others came first.

    `computed` () counts points: what is not a number there is not known, elsewhere it is what the loss is.
    The tiles of a plane are always the same ones, so that each is the same to the last bit whoever began, or does it.
    Those of a part lie all over the plane; it has none where there are more parts than tiles.
    """
    size, count = points_in_tile(judge), tiles(judge, plane)
    own = range(part.number - 1, count, part.of) if part else range(count)
    for done, tile in list(enumerate(own, 1))[max(0, desk.done - before) :]:
        first, last = tile * size, min((tile + 1) * size, plane.points)
        note(judge, tensors, slice(first, last), judge.judged(plane.weights(first, last)))
        tensors["computed"].add_(last - first)
        desk.keep(before + done, before + len(own), tensors)
    if not own:
        desk.keep(before, before, tensors)


def facts(judge: Judge, plane: Plane) -> Tensors:
    """What is known of a survey before it begins: places, norms and cosine of the directions, and no point yet."""
    lengths = torch.linalg.vector_norm(plane.directions.double(), dim=1)
    angle = {"cosine": cosine(plane.directions)} if len(lengths) > 1 else {}
    computed = torch.tensor(0)
    return {**dict(zip(AXES, plane.places, strict=False)), "norms": lengths, **angle, "computed": computed}


def caption(subject: Subject, splits: tuple[Split, ...], batch_norm: BatchNorm, tensors: Tensors) -> dict[str, Any]:
    """What every picture of a survey tells: axes, what was looked at and how much of it, and the lowest point."""
    axes = [tensors[name] for name in AXES if name in tensors]
    return {
        "axes": [
            {"range": [float(each[0]), float(each[-1])], "steps": len(each), "norm": length}
            for each, length in zip(axes, tensors["norms"].tolist(), strict=False)
        ],
        "cosine": float(tensors["cosine"]) if "cosine" in tensors else None,
        **looked_at(subject, splits, batch_norm),
        "points": math.prod(len(each) for each in axes) if axes else 0,
        "computed": int(tensors["computed"]),
        "surface": {split: extremes(tensors[f"{split}.loss"], axes) for split in splits} if axes else {},
    }


def looked_at(subject: Subject, splits: tuple[Split, ...], batch_norm: BatchNorm) -> dict[str, Any]:
    """Splits and their sizes, metrics, how many weights there are, and what became of batch norm if there is some."""
    return {
        "splits": list(splits),
        "examples": {split: len(subject.parts[split]) for split in splits},
        "metrics": measured(subject),
        "parameters": len(subject.network.values),
        "bn": batch_norm if running_norms(subject.network.module) else None,
    }


def standing(subjects: Sequence[Subject], at: Tensor, off: Tensor) -> list[dict[str, Any]]:
    """Where weights are along the directions (subjects, A), and how far from the plane (subjects,)."""
    return [
        {**named(subject), "at": place, "off": distance}
        for subject, place, distance in zip(subjects, at.tolist(), off.tolist(), strict=True)
    ]


def named(subject: Subject) -> dict[str, Any]:
    """Whose weights these are, for a caption."""
    source = subject.source
    return {
        "label": subject.label,
        "job": source.job,
        "checkpoint": source.checkpoint,
        "kind": source.kind,
        "step": source.step,
        "seed": subject.spec.seed,
    }


def by_name(subject: Subject, splits: tuple[Split, ...], values: Tensor) -> dict[str, dict[str, float]]:
    """Values (splits, metrics) by their names."""
    names = measured(subject)
    return {split: dict(zip(names, row.tolist(), strict=True)) for split, row in zip(splits, values, strict=True)}


def extremes(surface: Tensor, axes: Sequence[Tensor]) -> dict[str, Any] | None:
    """The lowest and the highest finite value of a surface and the place of the lowest; None where there is none."""
    finite = surface.isfinite()
    if not finite.any():
        return None
    low = torch.where(finite, surface, math.inf)
    found = torch.unravel_index(low.argmin(), surface.shape)
    at = [float(axis[each]) for axis, each in zip(axes, reversed(found), strict=True)]
    return {"lowest": float(low.min()), "at": at, "highest": float(torch.where(finite, surface, -math.inf).max())}
