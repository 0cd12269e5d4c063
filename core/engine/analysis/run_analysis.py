"""The run of one analysis, from its assignment to its result."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.engine.analysis.loaded_results import LoadedResult, open_results
from core.engine.analysis.progress import KEEP_SECONDS, AnalysisProgress, AnalysisStopped, Tensors
from core.engine.analysis.subject import AnalysisSubject, open_subjects
from core.engine.checkpoints.files import WEIGHTS, Files, write_bytes
from core.engine.checkpoints.writer import CheckpointHeader, Unwritten
from core.engine.determinism import open_device, torch_switches
from core.engine.environment import describe_device, environment_differences
from core.engine.events import Ended, Observer, Started
from core.engine.failure import EngineError, known_failure
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.pacing import with_pacing
from core.non_finite import encode_non_finite
from core.recipe.analyses import ResultsSpec
from core.recipe.assignment import AnalysisAssignment

Arrays = dict[str, NDArray[Any]]
Draw = Callable[[str, Mapping[str, Any], Arrays], Mapping[str, bytes]]
"""(kind, numbers, arrays) -> pictures by file name."""

DATA = "result.npz"


def run_analysis(
    assignment: AnalysisAssignment,
    observer: Observer,
    draw: Draw | None = None,
    *,
    report_alive: ReportAlive = report_nothing,
    keep_seconds: float = KEEP_SECONDS,
) -> Ended:
    """Compute an analysis tile by tile and return how it ended.

    The same assignment gives the same result, also when it is stopped and resumed between tiles. The result is a folder
    with the arrays (npz), a manifest, and the pictures that `draw` makes. A cancelled analysis writes the tiles so far
    as a partial result. Expected failures end it with an error; a bug raises. `report_alive` is called at the start of
    every piece of work; finished tiles are written to a checkpoint every `keep_seconds`.
    """
    try:
        with torch_switches(assignment.plan):
            return _compute_result(assignment, observer, draw, report_alive, keep_seconds)
    except EngineError as failure:
        return Ended("failed", None, {}, failure.as_document(), {})
    except (MemoryError, RuntimeError, OSError) as error:
        if (known := known_failure(error, torch.device(assignment.plan.device))) is None:
            raise
        return Ended("failed", None, {}, known.as_document(), {})


def _compute_result(
    assignment: AnalysisAssignment,
    observer: Observer,
    draw: Draw | None,
    report_alive: ReportAlive,
    keep_seconds: float,
) -> Ended:
    spec, device = assignment.spec, open_device(assignment.plan)
    report_alive = with_pacing(report_alive, device)
    given, parameters = _open_inputs(assignment, device, report_alive)
    environment = describe_device(device, assignment.plan)
    analysis_progress = AnalysisProgress(assignment, observer, environment, report_alive, keep_seconds)
    kind = import_module(spec.implementation)
    faithful = {"resume": _resume_fidelity(assignment, environment)} if assignment.resume else {}
    observer.emit(Started(analysis_progress.done, parameters, {**environment, **faithful}))
    request = None
    try:
        tensors: Tensors = kind.compute_tensors(spec, given, analysis_progress)
    except AnalysisStopped as interrupted:
        request, tensors = interrupted.request, analysis_progress.tensors
    progress = asdict(analysis_progress.progress())
    if request == "checkpoint":
        return Ended("stopped", None, {}, None, progress)
    if request == "cancel" and not tensors:
        return Ended("cancelled", "cancelled", {}, None, progress)
    numbers = {"partial": request == "cancel", **kind.report_numbers(spec, given, tensors)}
    arrays = {name: each.detach().cpu().numpy() for name, each in tensors.items()}
    facts = {"analysis": spec.dump(), "numbers": encode_non_finite(numbers)}
    analysis_progress.writer.insists = request != "cancel"
    put = partial(_write_result, analysis_progress, facts, arrays, report_alive)
    with suppress(*((Unwritten,) if request == "cancel" else ())):  # a cancelled analysis does not wait for a disk
        if request == "cancel":  # there is little time: arrays and numbers first
            put({})
        pictures = draw(spec.kind, numbers, arrays) if draw else {}
        if pictures or request != "cancel":
            put(pictures)
    if request == "cancel":
        return Ended("cancelled", "cancelled", numbers, None, progress)
    return Ended("succeeded", "completed", numbers, None, progress)


def _open_inputs(
    assignment: AnalysisAssignment, device: torch.device, report_alive: ReportAlive
) -> tuple[Sequence[AnalysisSubject] | Sequence[LoadedResult], int]:
    """The inputs of the analysis, and the number of weights in the first."""
    if isinstance(assignment.spec, ResultsSpec):
        results = open_results(assignment.readings)
        return results, int(results[0].numbers["parameters"])
    subjects = open_subjects(assignment.sources, assignment.plan, device, assignment.spec.examples, report_alive)
    return subjects, subjects[0].network.weights.numel()


def _resume_fidelity(assignment: AnalysisAssignment, environment: dict[str, Any]) -> dict[str, Any]:
    there = assignment.resume.manifest.get("environment", {}) if assignment.resume else {}
    reasons = environment_differences(there, environment)
    return {"fidelity": "approximate" if reasons else "exact", "reasons": reasons}


def _write_result(
    analysis_progress: AnalysisProgress,
    facts: Mapping[str, Any],
    arrays: Arrays,
    report_alive: ReportAlive,
    pictures: Mapping[str, bytes],
) -> None:
    """Write a folder with the data under the role of weights, and each picture under its own name."""

    def fill(folder: Path) -> Files:
        folder.mkdir(parents=True)
        data = {WEIGHTS: write_bytes(folder / DATA, npz_bytes(arrays), report_alive)}
        return data | {name: write_bytes(folder / name, content, report_alive) for name, content in pictures.items()}

    analysis_progress.writer.write_folder(
        CheckpointHeader("result", analysis_progress.done), fill, lambda _: dict(facts)
    )


def npz_bytes(arrays: Arrays) -> bytes:
    """The arrays as one npz file, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()
