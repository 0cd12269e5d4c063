"""Small jobs and somebody who watches them."""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.engine.events import (
    CheckpointWritten,
    Ended,
    Event,
    Log,
    PointsLogged,
    RolledBack,
    RunProgress,
    Started,
    StopRequest,
)
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.loop import train
from core.recipe.assignment import Assignment, Resume
from core.recipe.data import DataSpec
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
from core.recipe.stored import read_stored

OF_STEPS = ("train.loss", "lr", "grad_norm")  # series whose points stand at the step that they are of
SMALL_DIGITS = {"name": "digits", "validation": 0.1, "test": 0.8}  # 179 train, 180 validation, 1438 test


def job(**fields: Any) -> JobSpec:
    """A resolved spec, by default a small perceptron on a tenth of the digits."""
    base: dict[str, Any] = {
        "model": {"name": "mlp", "hidden": [16]},
        "data": SMALL_DIGITS,
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
        "batch_size": 24,
        "epochs": 3,
    }
    return JobSpec.model_validate_json(json.dumps({**base, **fields})).resolved()


@dataclass
class Watcher:
    """Keeps every event; asks to stop after the steps in `stop_after` (0: never) with `request`."""

    stop_after: int = 0
    request: StopRequest = "checkpoint"
    start: int = 0
    events: list[Event] = field(default_factory=list)
    steps: int = 0
    report_alive: ReportAlive = report_nothing

    def emit(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Started):
            self.start = event.step

    def stop_request(self) -> StopRequest | None:
        self.steps += 1
        return self.request if self.steps == self.stop_after else None

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Every point of every series that a resume repeats exactly, as (step, value) in the order of arrival.

        What a rollback takes back is not among them.
        """
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for event in self.events:
            if isinstance(event, RolledBack):
                for name, points in found.items():
                    last = event.step - (name in OF_STEPS or event.step == 0)
                    found[name] = [point for point in points if point[0] <= last]
            if isinstance(event, PointsLogged):
                for name, (steps, values, times) in event.series.items():
                    assert len(steps) == len(values) == len(times)
                    found[name] += zip(steps, values, strict=True)
        found.pop("throughput", None)
        return dict(found)

    def checkpoints(self, kind: str = "last") -> dict[int, CheckpointWritten]:
        """By step."""
        return {each.step: each for each in self.events if isinstance(each, CheckpointWritten) and each.kind == kind}

    def logs(self) -> list[Log]:
        return [event for event in self.events if isinstance(event, Log)]

    def progress(self) -> list[RunProgress]:
        return [event for event in self.events if isinstance(event, RunProgress)]


Train = Callable[..., tuple[Ended, Watcher]]
Script = Callable[[list[float]], None]


def trainer(folder: Path, dataset: Callable[[DataSpec], Path], *, travels: bool = True) -> Train:
    """train(spec, watcher=None, resume=None, **options) -> (ending, watcher); each attempt has its own scratch.

    An assignment `travels` to the engine as JSON, unless its model is of a test's own making.
    """
    attempts = iter(range(1, 10**6))

    def run(
        spec: JobSpec, watcher: Watcher | None = None, resume: CheckpointWritten | None = None, **options: Any
    ) -> tuple[Ended, Watcher]:
        watcher = watcher or Watcher()
        attempt = next(attempts)
        assignment = Assignment(
            job="job_test",
            attempt=attempt,
            spec=spec,
            plan=resolve_plan(spec, "cpu").model_copy(update=options.pop("plan", {})),
            dataset=options.pop("dataset", None) or dataset(spec.data),
            scratch=folder / str(attempt),
            resume=as_resume(resume, options.pop("anew", None)) if resume else None,
            initial=options.pop("initial", None),
        )
        sent = read_stored(Assignment, json.loads(assignment.model_dump_json())) if travels else assignment
        return train(sent, watcher, report_alive=watcher.report_alive, **options), watcher

    return run


def as_resume(checkpoint: CheckpointWritten, anew: tuple[str, ...] | None = None) -> Resume:
    """What a runner is given; `anew` makes it another job's checkpoint."""
    folder = Path(checkpoint.folder)
    return Resume(
        weights=folder / "weights.safetensors",
        state=folder / "state.safetensors",
        manifest=json.loads((folder / "manifest.json").read_text()),
        anew=anew,
    )


def digests(checkpoint: CheckpointWritten) -> dict[str, str]:
    """SHA-256 of the files that are functions of their tensors."""
    return {role: each["sha256"] for role, each in checkpoint.files.items() if role != "manifest"}


@contextmanager
def no_trace() -> Iterator[None]:
    """Asserts that torch's generator and switches are the same afterwards."""
    import torch

    def look() -> tuple[Any, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_float32_matmul_precision(),
            torch.default_generator.get_state().numpy().tobytes(),
        )

    before = look()
    yield
    assert look() == before
