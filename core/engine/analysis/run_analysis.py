"""One analysis from its assignment to its result."""

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

from core.engine.analysis.loaded_results import Result, open_results
from core.engine.analysis.progress import KEEP_SECONDS, AnalysisProgress, Interrupted, Tensors
from core.engine.analysis.subject import Subject, open_subjects
from core.engine.checkpoints.files import WEIGHTS, Files, write_bytes
from core.engine.checkpoints.writer import CheckpointHeader, Unwritten
from core.engine.determinism import open_device, switched
from core.engine.environment import about, differences
from core.engine.events import Ended, Observer, Started
from core.engine.failure import EngineError, expected
from core.engine.liveness import ReportAlive, unwatched
from core.engine.pacing import paced
from core.non_finite import in_json
from core.recipe.analyses import ResultsSpec
from core.recipe.assignment import AnalysisAssignment

Arrays = dict[str, NDArray[Any]]
Draw = Callable[[str, Mapping[str, Any], Arrays], Mapping[str, bytes]]
"""(kind, numbers, arrays) -> pictures by file name."""

DATA = "result.npz"


def analyse(
    assignment: AnalysisAssignment,
    observer: Observer,
    draw: Draw | None = None,
    *,
    report_alive: ReportAlive = unwatched,
    keep_seconds: float = KEEP_SECONDS,
) -> Ended:
    """Look, tile by tile, and say how it ended; the same assignment gives the same result, also when it is stopped and
    resumed between tiles.

    The result is a folder with the arrays (npz), a manifest, and the pictures that `draw` makes. One that is cancelled
    leaves what it has so far, marked as partial. Expected failures end it with an error; a bug raises. `report_alive`
    hears of every piece of work as it begins; what it has is written down every `keep_seconds`.
    """
    try:
        with switched(assignment.plan):
            return _analyse(assignment, observer, draw, report_alive, keep_seconds)
    except EngineError as failure:
        return Ended("failed", None, {}, failure.document(), {})
    except (MemoryError, RuntimeError, OSError) as error:
        if (known := expected(error, torch.device(assignment.plan.device))) is None:
            raise
        return Ended("failed", None, {}, known.document(), {})


def _analyse(
    assignment: AnalysisAssignment,
    observer: Observer,
    draw: Draw | None,
    report_alive: ReportAlive,
    keep_seconds: float,
) -> Ended:
    spec, device = assignment.spec, open_device(assignment.plan)
    report_alive = paced(report_alive, device)
    given, parameters = _given(assignment, device, report_alive)
    environment = about(device, assignment.plan)
    desk = AnalysisProgress(assignment, observer, environment, report_alive, keep_seconds)
    kind = import_module(spec.implementation)
    faithful = {"resume": _fidelity(assignment, environment)} if assignment.resume else {}
    observer.emit(Started(desk.done, parameters, {**environment, **faithful}))
    request = None
    try:
        tensors: Tensors = kind.explore(spec, given, desk)
    except Interrupted as interrupted:
        request, tensors = interrupted.request, desk.tensors
    progress = asdict(desk.progress())
    if request == "checkpoint":
        return Ended("stopped", None, {}, None, progress)
    if request == "cancel" and not tensors:
        return Ended("cancelled", "cancelled", {}, None, progress)
    numbers = {"partial": request == "cancel", **kind.report(spec, given, tensors)}
    arrays = {name: each.detach().cpu().numpy() for name, each in tensors.items()}
    facts = {"analysis": spec.dump(), "numbers": in_json(numbers)}
    desk.writer.insists = request != "cancel"
    put = partial(_write_result, desk, facts, arrays, report_alive)
    with suppress(*((Unwritten,) if request == "cancel" else ())):  # then nobody waits for a disk
        if request == "cancel":  # there is little time: first what matters
            put({})
        pictures = draw(spec.kind, numbers, arrays) if draw else {}
        if pictures or request != "cancel":
            put(pictures)
    if request == "cancel":
        return Ended("cancelled", "cancelled", numbers, None, progress)
    return Ended("succeeded", "completed", numbers, None, progress)


def _given(
    assignment: AnalysisAssignment, device: torch.device, report_alive: ReportAlive
) -> tuple[Sequence[Subject] | Sequence[Result], int]:
    """What it looks at, and how many weights that has."""
    if isinstance(assignment.spec, ResultsSpec):
        results = open_results(assignment.readings)
        return results, int(results[0].numbers["parameters"])
    subjects = open_subjects(assignment.sources, assignment.plan, device, assignment.spec.examples, report_alive)
    return subjects, subjects[0].network.weights.numel()


def _fidelity(assignment: AnalysisAssignment, environment: dict[str, Any]) -> dict[str, Any]:
    there = assignment.resume.manifest.get("environment", {}) if assignment.resume else {}
    reasons = differences(there, environment)
    return {"fidelity": "approximate" if reasons else "exact", "reasons": reasons}


def _write_result(
    desk: AnalysisProgress,
    facts: Mapping[str, Any],
    arrays: Arrays,
    report_alive: ReportAlive,
    pictures: Mapping[str, bytes],
) -> None:
    """Write a folder with the data under the role of weights, and each picture under its own name."""

    def fill(folder: Path) -> Files:
        folder.mkdir(parents=True)
        data = {WEIGHTS: write_bytes(folder / DATA, npz(arrays), report_alive)}
        return data | {name: write_bytes(folder / name, content, report_alive) for name, content in pictures.items()}

    desk.writer.write_folder(CheckpointHeader("result", desk.done), fill, lambda _: dict(facts))


def npz(arrays: Arrays) -> bytes:
    """The arrays as one npz file, the same bytes for the same arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    return buffer.getvalue()
