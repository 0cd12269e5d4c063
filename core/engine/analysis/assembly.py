"""Assembly of a landscape from its parts; see core.recipe.analyses.assembly."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from core.engine.analysis.grid import AXES, surface_extremes
from core.engine.analysis.loaded_results import LoadedResult
from core.engine.analysis.progress import AnalysisProgress, Tensors
from core.engine.failure import EngineError
from core.recipe.analyses.assembly import Assembly

SAME: Final = ("fingerprint", *AXES)
"""The arrays that fix the place of a landscape: equal in all parts up to rounding."""
CLOSE: Final = 1e-3  # of the largest: far above rounding, far below the difference to another direction
REMEDY: Final = "Compute this part again, where the first one was computed."


def compute_tensors(spec: Assembly, results: Sequence[LoadedResult], analysis_progress: AnalysisProgress) -> Tensors:
    """The arrays of the whole landscape. All arrays but the surfaces are those of the first part."""
    parts = sort_by_part(results)
    first, surfaces = parts[0], surfaces_of(parts[0].numbers)
    tensors = {name: each.clone() for name, each in first.arrays.items() if name != "fingerprint"}
    tensors |= {name: torch.full_like(tensors[name], math.nan) for name in surfaces}
    tensors["computed"] = torch.zeros_like(tensors["computed"])
    tensors |= analysis_progress.found
    for place, part in enumerate(parts[analysis_progress.done :], analysis_progress.done + 1):
        if not check_same_landscape(first, part):
            analysis_progress.warn(
                f"{part.label} was computed where numbers are rounded in another way than for {first.label}"
            )
        for name in surfaces:
            copy_computed_cells(tensors[name], part.arrays[name], part.label)
        tensors["computed"] += part.arrays["computed"]
        analysis_progress.keep(place, len(parts), tensors)
    if int(tensors["computed"]) != first.numbers["points"]:
        raise EngineError(
            "engine_error", "these parts do not cover the landscape", "Compute all parts with one release."
        )
    return tensors


def sort_by_part(results: Sequence[LoadedResult]) -> list[LoadedResult]:
    """The parts in the order of their numbers."""
    return sorted(results, key=lambda each: int(each.numbers["part"]["number"]))


def surfaces_of(numbers: Mapping[str, Any]) -> list[str]:
    """The names of the arrays whose cells are distributed over the parts."""
    return [f"{split}.{metric}" for split in numbers["splits"] for metric in numbers["metrics"]]


def check_same_landscape(first: LoadedResult, part: LoadedResult) -> bool:
    """Whether a part belongs to the same landscape to the last bit; False if they differ by rounding.

    Raises:
        EngineError: the part belongs to another landscape.
    """
    if {name: each.shape for name, each in part.arrays.items()} != {n: e.shape for n, e in first.arrays.items()}:
        raise EngineError("engine_error", f"{part.label} holds other arrays than {first.label}", REMEDY)
    for name in SAME:
        if name in first.arrays and not _rows_close(first.arrays[name], part.arrays[name]):
            raise EngineError("engine_error", f"{part.label} has other directions than {first.label}", REMEDY)
    own = {*surfaces_of(first.numbers), "computed"}
    return all(
        torch.equal(_bit_pattern(each), _bit_pattern(part.arrays[name]))
        for name, each in first.arrays.items()
        if name not in own
    )


def _rows_close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether all rows are close, each relative to the largest entry of the row."""
    return bool(((ours - theirs).abs() <= CLOSE * ours.abs().amax(-1, keepdim=True)).all())


def copy_computed_cells(whole: Tensor, part: Tensor, label: str) -> None:
    """Copy the computed cells of a part into the whole. Raises EngineError if the whole has one of them already.

    A cell that was not computed has the bits of torch's own NaN. A computed loss that is NaN keeps its own bits.
    """
    blank = _bit_pattern(torch.tensor(math.nan, dtype=torch.float64))
    known, theirs = _bit_pattern(whole), _bit_pattern(part)
    if bool(((known != blank) & (theirs != blank)).any()):
        raise EngineError(
            "engine_error", f"{label} holds points of another part", "Compute all parts with one release."
        )
    known.copy_(torch.where(theirs != blank, theirs, known))


def _bit_pattern(values: Tensor) -> Tensor:
    """The bits of float64 values as int64, in which NaNs are comparable; integers unchanged."""
    return values.view(torch.int64) if values.dtype == torch.float64 else values


def report_numbers(spec: Assembly, results: Sequence[LoadedResult], tensors: Tensors) -> dict[str, Any]:
    """The numbers of the whole landscape: those of its parts, except for numbers that depend on all points."""
    numbers = {name: each for name, each in sort_by_part(results)[0].numbers.items() if name != "partial"}
    axes = [tensors[name] for name in AXES if name in tensors]
    surface = {split: surface_extremes(tensors[f"{split}.loss"], axes) for split in numbers["splits"]}
    return numbers | {"part": None, "computed": int(tensors["computed"]), "surface": surface}
