"""Analyses of small jobs, in this process."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.engine.analysis.analyse import Draw, analyse
from core.engine.events import CheckpointWritten, Ended
from core.recipe.analyses import read_analysis
from core.recipe.assignment import AnalysisAssignment, Resume, Source
from core.recipe.data import DataSpec
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
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


def looker(folder: Path, dataset: Callable[[DataSpec], Path]) -> Look:
    """Look at the weights of (spec, checkpoint) pairs; fields are those of the analysis but where it looks."""
    count = 0

    def look(
        subjects: Sequence[tuple[JobSpec, CheckpointWritten | None]],
        watcher: Watcher | None = None,
        resume: Resume | None = None,
        draw: Draw | None = None,
        **fields: Any,
    ) -> Looked:
        nonlocal count
        count += 1
        several = {"checkpoints": [{"checkpoint": CHECKPOINT}] * len(subjects)}
        where = several if len(subjects) > 1 else {"job": JOB}
        spec = read_analysis(json.dumps({**where, **fields}))
        scratch = folder / f"look-{count}"
        scratch.mkdir()
        sources = tuple(
            source(each, written, dataset(each.data), f"subject {number}")
            for number, (each, written) in enumerate(subjects)
        )
        assignment = AnalysisAssignment(
            job="an_test",
            attempt=1,
            spec=spec,
            plan=resolve_plan(spec, "cpu"),
            sources=sources,
            scratch=scratch,
            resume=resume,
        )
        seen = watcher or Watcher()
        ended = analyse(assignment, seen, draw)
        found = next(
            (each for each in seen.events if isinstance(each, CheckpointWritten) and each.kind == "result"), None
        )
        return Looked(ended, seen, arrays(found) if found else {})

    return look


def arrays(result: CheckpointWritten) -> dict[str, Any]:
    """Of a result's data file."""
    content = (Path(result.folder) / result.files["weights"]["name"]).read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def kept(written: CheckpointWritten) -> Resume:
    """What an analysis goes on from."""
    folder = Path(written.folder)
    return Resume(
        weights=folder / written.files["weights"]["name"],
        state=folder / written.files["state"]["name"],
        manifest=written.manifest,
    )
