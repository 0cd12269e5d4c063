"""Real runs of a few steps through the engine: the same bits twice, and the same after an interruption."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from core.engine.events import CheckpointWritten, Ended, Event, StopRequest
from core.engine.loop import train
from core.errors import InvalidSpec
from core.recipe.assignment import Assignment, Resume
from core.recipe.data.materialise import materialise_dataset
from core.recipe.optimizers import Optimizer
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan
from core.recipe.plugins import union_members
from core.recipe.spec import JobSpec

SMALL_JOB: Final[Mapping[str, Any]] = {
    "model": {"name": "mlp", "hidden": [8, 8]},
    "data": {"name": "blobs", "examples": 60, "features": 5, "classes": 3},
    "batch_size": 16,
    "steps": 4,
}
STOP: Final = 2
"""The steps of the interrupted run before its interruption."""


@dataclass
class Watcher:
    """Keeps the checkpoints; asks to stop after `stop_after` steps (0: never)."""

    stop_after: int = 0
    steps: int = 0
    checkpoints: list[CheckpointWritten] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """One of the engine's events."""
        if isinstance(event, CheckpointWritten) and event.kind == "last":
            self.checkpoints.append(event)

    def stop_request(self) -> StopRequest | None:
        """Asked once a step."""
        self.steps += 1
        return "checkpoint" if self.steps == self.stop_after else None

    def digests(self) -> dict[str, str]:
        """SHA-256 of weights and state of the last checkpoint."""
        return {role: str(each["sha256"]) for role, each in self.checkpoints[-1].files.items() if role != "manifest"}


def check_run(**fields: Any) -> None:
    """A small job with these fields trains two steps and two more, twice with the same bits, and resumes exact."""
    spec = parse_small_job(fields)
    with tempfile.TemporaryDirectory(prefix="basin-contract-") as folder:
        path = Path(folder)
        data = materialise_dataset(spec.data, path)
        whole, again, first, second = Watcher(), Watcher(), Watcher(STOP), Watcher()
        for watcher, name in ((whole, "whole"), (again, "again")):
            _expect("succeeded", _run(spec, watcher, data, path / name))
        assert whole.digests() == again.digests(), "two runs of the same job end with other bits"
        _expect("stopped", _run(spec, first, data, path / "first"))
        resume = _resume_point(first.checkpoints[-1])
        _expect("succeeded", _run(spec, second, data, path / "second", resume))
        assert second.steps == whole.steps - STOP, f"the resumed run made {second.steps} of {whole.steps - STOP} steps"
        message = "the run that was interrupted ends with other bits: state is missing in state_dict()"
        assert second.digests() == whole.digests(), message
        manifest = json.loads((Path(second.checkpoints[-1].folder) / "manifest.json").read_text())
        assert "environment" in manifest, "the checkpoint does not say where it was computed"


def parse_small_job(fields: Mapping[str, Any]) -> JobSpec:
    """The small job with these fields. AssertionError if it is refused."""
    optimizer = next(iter(union_members(Optimizer)))(lr=0.01)
    try:
        return parse_job(json.dumps({**SMALL_JOB, "optimizer": optimizer.dump(), **fields}).encode())
    except InvalidSpec as error:
        raise AssertionError(f"a job with it is refused; is the plug-in installed? {error.errors}") from error


def _run(spec: JobSpec, watcher: Watcher, dataset: Path, scratch: Path, resume: Resume | None = None) -> Ended:
    assignment = Assignment(
        job="job_contract",
        attempt=1,
        spec=spec,
        plan=resolve_plan(spec, "cpu"),
        dataset=dataset,
        scratch=scratch,
        resume=resume,
    )
    return train(assignment, watcher)


def _expect(outcome: str, ended: Ended) -> None:
    assert ended.outcome == outcome, f"the run has {ended.outcome}: {ended.error}"


def _resume_point(checkpoint: CheckpointWritten) -> Resume:
    folder = Path(checkpoint.folder)
    return Resume(
        weights=folder / "weights.safetensors",
        state=folder / "state.safetensors",
        manifest=json.loads((folder / "manifest.json").read_text()),
    )
