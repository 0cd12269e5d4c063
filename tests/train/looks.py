"""Analyses of small jobs, in this process."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.engine.analysis.progress import KEEP_SECONDS
from core.engine.analysis.run_analysis import Draw, run_analysis
from core.engine.events import CheckpointWritten, Ended
from core.non_finite import encode_non_finite
from core.recipe.analyses import Analysis
from core.recipe.assignment import AnalysisAssignment, AnalysisResult, Resume, Source
from core.recipe.data import DataSpec
from core.recipe.plan import SlotKind, resolve_plan
from core.recipe.spec import JobSpec
from tests.support.specs import analysis_of
from tests.train.runs import Watcher

JOB = "job_" + "0" * 26
CHECKPOINT = "ckpt_" + "0" * 26


@dataclass(frozen=True)
class Looked:
    """How an analysis ended, what it said, and the arrays of its result."""

    ended: Ended
    watcher: Watcher
    arrays: dict[str, Any]

    @property
    def numbers(self) -> Mapping[str, Any]:
        return self.ended.results


Look = Callable[..., Looked]


def source(spec: JobSpec, written: CheckpointWritten | None, dataset: Path, label: str) -> Source:
    """The weights of a checkpoint of a job, or the job's recipe."""
    if written is None:
        return Source(label=label, job=JOB, spec=spec, dataset=dataset)
    weights = Path(written.folder) / written.files["weights"]["name"]
    place: dict[str, Any] = {"checkpoint": CHECKPOINT, "step": written.step, "kind": written.kind}
    return Source(label=label, job=JOB, spec=spec, dataset=dataset, weights=weights, **place)


def looker(folder: Path, dataset: Callable[[DataSpec], Path], slot: SlotKind = "cpu") -> Look:
    """Look at the weights of (spec, checkpoint) pairs; fields are those of the analysis but where it looks."""
    count = 0

    def look(
        subjects: Sequence[tuple[JobSpec, CheckpointWritten | None]],
        watcher: Watcher | None = None,
        resume: Resume | None = None,
        draw: Draw | None = None,
        keep_seconds: float = KEEP_SECONDS,
        **fields: Any,
    ) -> Looked:
        nonlocal count
        count += 1
        several = {"checkpoints": [{"checkpoint": CHECKPOINT}] * len(subjects)}
        where = several if len(subjects) > 1 else {"job": JOB}
        spec = analysis_of({**where, **fields})
        sources = tuple(
            source(each, written, dataset(each.data), f"subject {number}")
            for number, (each, written) in enumerate(subjects)
        )
        scratch = folder / f"look-{count}"
        options = {"slot": slot, "keep_seconds": keep_seconds}
        return looked(spec, scratch, watcher or Watcher(), draw, **options, sources=sources, resume=resume)

    return look


def looked(
    spec: Analysis,
    scratch: Path,
    watcher: Watcher,
    draw: Draw | None = None,
    *,
    keep_seconds: float = KEEP_SECONDS,
    slot: SlotKind = "cpu",
    **fields: Any,
) -> Looked:
    """Carry out an analysis; `fields` are those of its assignment."""
    scratch.mkdir()
    plan = resolve_plan(spec, slot)
    assignment = AnalysisAssignment(job="an_test", attempt=1, spec=spec, plan=plan, scratch=scratch, **fields)
    ended = run_analysis(assignment, watcher, draw, report_alive=watcher.report_alive, keep_seconds=keep_seconds)
    found = next(
        (each for each in watcher.events if isinstance(each, CheckpointWritten) and each.kind == "result"), None
    )
    return Looked(ended, watcher, arrays(found) if found else {})


def reading(found: Looked, label: str) -> AnalysisResult:
    """What another analysis reads of this one; its numbers have been in the database meanwhile."""
    (written,) = (
        each for each in found.watcher.events if isinstance(each, CheckpointWritten) and each.kind == "result"
    )
    spec = analysis_of(written.manifest["analysis"])
    numbers = json.loads(json.dumps(encode_non_finite(found.ended.results), allow_nan=False))
    return AnalysisResult(label=label, spec=spec, numbers=numbers, data=data_of(written))


def arrays(result: CheckpointWritten) -> dict[str, Any]:
    """Of a result's data file."""
    content = data_of(result).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def data_of(result: CheckpointWritten) -> Path:
    """The file with its arrays."""
    return Path(result.folder) / result.files["weights"]["name"]


def kept(written: CheckpointWritten) -> Resume:
    """What an analysis goes on from."""
    folder = Path(written.folder)
    return Resume(
        weights=folder / written.files["weights"]["name"],
        state=folder / written.files["state"]["name"],
        manifest=written.manifest,
    )
