"""Stopped and resumed at several steps, a run ends with the bits and points of an undisturbed one."""

from functools import partial
from typing import Any

from core.engine.events import CheckpointWritten, RolledBack
from core.recipe.spec import JobSpec
from tests.gpu.check.data import dataset
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target
from tests.gpu.specs import further_specs, stepped_specs
from tests.train.runs import Train, Watcher, digests, trainer

STOPS = (3, 13, 14)
STOPS_BEHIND = (11, 13, 14)  # after it has gone back: what is no finite number leaves no checkpoint
DRY_STRIDE = 4  # tests of the engine resume all of them on a CPU


def resume(target: Target, report: Report) -> None:
    """Every optimizer with two networks, then whatever else keeps a state."""
    run = trainer(target.folder / "resume", partial(dataset, folder=target.folder / "datasets"))
    specs = [*further_specs().items(), *stepped_specs().items()]
    for name, spec in specs[:: target.choose(1, DRY_STRIDE)]:
        with report.finding(f"{name}: resumed, the same bits") as same:
            ok, detail = compared(run, spec, {"plan": {"device": target.device}})
            same.says(ok, detail)


def compared(run: Train, spec: JobSpec, options: dict[str, Any]) -> tuple[bool, str]:
    """Whether the pieces are the whole, and what they are."""
    ending, whole = run(spec, **options)
    if ending.outcome != "succeeded":
        return False, f"{ending.error}"
    last: CheckpointWritten | None = None
    pieces: list[Watcher] = []
    stops = STOPS_BEHIND if spec.rollback else STOPS
    for before, stop in zip((0, *stops), (*stops, 0), strict=True):
        _, piece = run(spec, Watcher(stop_after=max(0, stop - before)), last, **options)
        pieces.append(piece)
        last = max(piece.checkpoints().items())[1]
    expected = max(whole.checkpoints().items())[1]
    back = any(isinstance(event, RolledBack) for event in whole.events)
    points = [point for piece in pieces for point in piece.series().get("train.loss", [])]
    same_points = back or points == whole.series()["train.loss"]
    same = digests(last) == digests(expected) if last else False
    reasons = [event.message for piece in pieces for event in piece.logs() if "approximate" in event.message]
    detail = f"bits {'same' if same else 'DIFFER'}, points {'same' if same_points else 'DIFFER'} {reasons}"
    return same and same_points and not reasons, f"{detail}; {'went back; ' if back else ''}{digests(expected)}"
