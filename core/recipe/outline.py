"""The outline of a run before it begins: its length, and warnings about settings that are probably not intended."""

from dataclasses import dataclass

from core.errors import UnreadableSpec
from core.recipe.checks.spec import warnings
from core.recipe.component import SpecWarning
from core.recipe.shape import RunShape
from core.recipe.spec import JobSpec
from core.recipe.stored import read_stored


@dataclass(frozen=True, slots=True)
class RunOutline:
    """`total_steps` and `epochs` are None where only a time limit ends the run, or where the spec is unreadable."""

    total_steps: int | None = None
    epochs: int | None = None
    warnings: tuple[SpecWarning, ...] = ()


def outline_run(spec: JobSpec, shape: RunShape) -> RunOutline:
    """The outline of a resolved job."""
    run, found = shape.run, tuple(warnings(spec, shape))
    if not run.bounded:
        return RunOutline(warnings=found)
    return RunOutline(run.total_steps, -(-run.total_steps // run.steps_per_epoch), found)


def outline_stored_run(document: object) -> RunOutline:
    """The outline of a job from its stored JSON; empty if this release cannot read the spec."""
    try:
        spec = read_stored(JobSpec, document)
    except UnreadableSpec:
        return RunOutline()
    return outline_run(spec, spec.shape())
