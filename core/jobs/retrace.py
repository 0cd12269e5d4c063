"""A stretch of a job's past that can be trained again: from one checkpoint, or the start, to the next one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from core.db.session import Database
from core.db.tables import job
from core.errors import InvalidSpec, NotFound
from core.jobs.checkpoints import CheckpointRow, find_checkpoint, good_resumable, origin_of
from core.recipe.plan import ExecutionPlan
from core.recipe.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Past:
    """What a job was to do, how it was to be computed, and the checkpoints that are left to go on from, by step.

    `resume` says how faithful its own last resume was; None: it never resumed. A child begins at its parent's
    checkpoint `origin`, without the parts `anew`, or with the weights of `initial`; `whole`: that is still there.
    """

    job_id: str
    spec: JobSpec
    plan: ExecutionPlan
    resume: dict[str, Any] | None
    checkpoints: Sequence[CheckpointRow]
    origin: CheckpointRow | None
    anew: tuple[str, ...]
    initial: CheckpointRow | None
    whole: bool


@dataclass(frozen=True, slots=True)
class Stretch:
    """From `begin` (None: the start) to `end`."""

    begin: CheckpointRow | None
    end: CheckpointRow


def read_past(db: Database, job_id: str) -> Past:
    """The past of anybody's job.

    Raises:
        NotFound: there is no such job, it never ran, or it has no checkpoint.
        InvalidSpec: it is of a release that this one cannot read.
    """
    names = ("spec", "plan", "resume", "parent_verb", "parent_step", "initial_id", "anew")
    query = select(*(job.c[name] for name in names)).where(job.c.id == job_id, job.c.kind == "train")
    with db.snapshot() as connection:
        row = connection.execute(query).one_or_none()
        checkpoints, origin = good_resumable(connection, job_id), None
        if row is not None and row.parent_verb in {"retry", "fork"} and row.parent_step:
            origin = origin_of(connection, job_id)
        initial = find_checkpoint(connection, row.initial_id) if row is not None and row.initial_id else None
    if row is None:
        raise NotFound("There is no job with this id.")
    if row.plan is None or not checkpoints:
        raise NotFound("The job has no checkpoint that one could train to.")
    try:
        spec, plan = JobSpec.model_validate_json(row.spec), ExecutionPlan.model_validate_json(row.plan)
    except ValueError as error:
        raise InvalidSpec("This release cannot read the job; use the one that took it.") from error
    if row.parent_verb in {"retry", "fork"} and row.parent_step:
        whole = origin is not None
    else:
        whole = row.initial_id is None or initial is not None
    anew = tuple(row.anew or ())
    return Past(job_id, spec.resolved(), plan, row.resume, checkpoints, origin, anew, initial, whole)


def stretch(past: Past, start: int | None) -> Stretch:
    """From the checkpoint at step `start` (0: the start) to the next one that training alone leads to.

    None: from the oldest checkpoint, or from the start where there is only one.

    Raises:
        NotFound: there is no such checkpoint, or none behind it.
    """
    rows = past.checkpoints
    begin = next((row for row in rows if row.step == start), None)
    if start is None and len(rows) > 1:
        begin = rows[0]
    if start and begin is None:
        known = ", ".join(str(row.step) for row in rows)
        raise NotFound(f"There is no checkpoint at step {start}; there are 0 (the start), {known}.")
    if begin is None and not past.whole:
        raise NotFound("The checkpoint that this job began with is gone; begin at one of its own with --from.")
    begin = begin or past.origin
    first = begin.step if begin else 0
    end = next((row for row in rows if row.step > first and _repeats(row, past.spec)), None)
    if end is None:
        raise NotFound(f"Behind step {first} there is no checkpoint that one could train to.")
    return Stretch(begin, end)


def is_final(row: CheckpointRow) -> bool:
    """Whether the run was over there, so that results stand in it."""
    return row.manifest.get("results") is not None


def _repeats(row: CheckpointRow, spec: JobSpec) -> bool:
    """Whether training comes to it by itself: no clock ended the run there, nor chose a step that comes twice."""
    if row.manifest.get("stop_reason") == "time_limit":
        return False
    every = spec.checkpoints.every.steps(spec.run_length())
    return spec.rollback is None or is_final(row) or row.step % every == 0
