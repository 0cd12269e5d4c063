"""A segment of a job's history that can be trained again: from one checkpoint, or the start, to the next one."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, select

from core.db.session import Database
from core.db.tables import event, job
from core.errors import InvalidSpec, NotFound
from core.jobs.checkpoints.records import CheckpointRow, find_checkpoint, find_origin_checkpoint, list_resumable
from core.jobs.kinds import TRAIN
from core.recipe.plan import ExecutionPlan
from core.recipe.spec import JobSpec

# Code of a warning about a changed execution plan -> what the job did then.
CHANGES: Final = {
    "remedy": "ran out of memory, and continued from step {step} with fewer examples at once",
    "planned_anew": "continued from step {step} on another kind of device",
}


@dataclass(frozen=True, slots=True)
class JobHistory:
    """The spec of a job, its execution plan, and its resumable checkpoints that still exist, by step.

    `resume` is the fidelity of its last resume; None: it never resumed. A child begins at its parent's checkpoint
    `origin`, with the parts `anew` reset, or with the weights of `initial`; `whole`: that checkpoint still exists.
    `begins`: attempt -> the step at which it began. `changes`: attempt -> the warning code of a changed plan after it.
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
    begins: Mapping[int, int]
    changes: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Segment:
    """From `begin` (None: the start) to `end`, as it was computed there."""

    begin: CheckpointRow | None
    end: CheckpointRow
    plan: ExecutionPlan


def read_history(db: Database, job_id: str) -> JobHistory:
    """The history of a job of any project.

    Raises:
        NotFound: there is no such job, it never ran, or it has no checkpoint.
        InvalidSpec: it is of a release that this one cannot read.
    """
    names = ("spec", "plan", "resume", "parent_verb", "parent_step", "initial_id", "anew")
    query = select(*(job.c[name] for name in names)).where(job.c.id == job_id, job.c.kind == TRAIN.name)
    with db.read_snapshot() as connection:
        row = connection.execute(query).one_or_none()
        checkpoints, origin = list_resumable(connection, job_id), None
        if row is not None and row.parent_verb in {"retry", "fork"} and row.parent_step:
            origin = find_origin_checkpoint(connection, job_id)
        initial = find_checkpoint(connection, row.initial_id) if row is not None and row.initial_id else None
        begins, changes = _read_attempts(connection, job_id)
    if row is None:
        raise NotFound("There is no job with this id.")
    if row.plan is None or not checkpoints:
        raise NotFound("The job has no checkpoint that training from an earlier step could reproduce.")
    try:
        spec, plan = TRAIN.read_spec(row.spec), ExecutionPlan.model_validate_json(row.plan)
    except ValueError as error:
        raise InvalidSpec("This release cannot read the job; use the release that it was submitted to.") from error
    if row.parent_verb in {"retry", "fork"} and row.parent_step:
        whole = origin is not None
    else:
        whole = row.initial_id is None or initial is not None
    anew = tuple(row.anew or ())
    return JobHistory(
        job_id, spec.resolved(), plan, row.resume, checkpoints, origin, anew, initial, whole, begins, changes
    )


def _read_attempts(connection: Connection, job_id: str) -> tuple[dict[int, int], dict[int, str]]:
    """The step at which each attempt began, and the attempts after which the plan was changed, with the warning."""
    row = event.c
    query = select(row.attempt, row.type, row.data).where(row.job_id == job_id, row.type.in_(("status", "warning")))
    begins, changes = {}, {}
    for attempt, kind, data in connection.execute(query.order_by(row.id)):
        if kind == "status" and data["status"] == "running":
            found = re.search(r", from step (\d+)$", data["detail"])
            begins[attempt] = int(found[1]) if found else 0
        if kind == "warning" and data.get("code") in CHANGES:
            # `remedy` is recorded by the attempt before the change, `planned_anew` by the first attempt after it.
            changes[attempt - (data["code"] == "planned_anew")] = data["code"]
    return begins, changes


def find_segment(past: JobHistory, start: int | None) -> Segment:
    """From the checkpoint at step `start` (0: the start) to the next one that training alone determines.

    None: from the oldest checkpoint with a next one, or from the start where there is only one.

    Raises:
        NotFound: there is no such checkpoint, or none after it that was computed with a single plan.
    """
    rows = past.checkpoints
    if start is None and len(rows) > 1:
        return _first_segment(past)
    begin = next((row for row in rows if row.step == start), None)
    if start and begin is None:
        known = ", ".join(str(row.step) for row in rows)
        raise NotFound(f"There is no checkpoint at step {start}; there are 0 (the start), {known}.")
    if begin is None and not past.whole:
        raise NotFound("The checkpoint that this job began with no longer exists; name one of its own with --from.")
    return _segment_from(past, begin or past.origin)


def _first_segment(past: JobHistory) -> Segment:
    """From the oldest checkpoint that can be compared with a later one."""
    for row in past.checkpoints[:-2]:
        with suppress(NotFound):
            return _segment_from(past, row)
    return _segment_from(past, past.checkpoints[-2])


def _segment_from(past: JobHistory, begin: CheckpointRow | None) -> Segment:
    first = begin.step if begin else 0
    end = next((row for row in past.checkpoints if row.step > first and _is_reproducible(row, past.spec)), None)
    if end is None:
        raise NotFound(f"After step {first} there is no checkpoint that training could reproduce.")
    attempts = _attempts_between(past, first, end)
    if changed := past.changes.keys() & set(attempts[:-1]):
        step = past.begins[attempts[attempts.index(max(changed)) + 1]]
        change = CHANGES[past.changes[max(changed)]].format(step=step)
        raise NotFound(
            f"Between the steps {first} and {end.step} the job {change}. "
            "The checkpoint of that step no longer exists, so these bits cannot be compared; name another with --from."
        )
    return Segment(begin, end, _plan_of(past, end))


def _plan_of(past: JobHistory, end: CheckpointRow) -> ExecutionPlan:
    """How it was computed before this checkpoint: the plan may have been changed since."""
    environment = end.manifest.get("environment", {})
    device = environment.get("kind", past.plan.device)
    return past.plan.model_copy(update={"device": device, "micro_batch": environment.get("micro_batch")})


def _attempts_between(past: JobHistory, first: int, end: CheckpointRow) -> list[int]:
    """The attempts, in order, from the one that continued from step `first` to the one that wrote `end`.

    Each began at the newest checkpoint, which the last attempt before it that began at an earlier step has written.
    Attempts in between wrote no checkpoint, but they may have changed the plan: they are included.
    """
    found = [end.attempt]
    while past.begins.get(found[0], 0) > first:
        found.insert(0, found[0] - 1)
    return found


def is_final(row: CheckpointRow) -> bool:
    """Whether the run ended at this checkpoint, so that it holds the results."""
    return row.manifest.get("results") is not None


def _is_reproducible(row: CheckpointRow, spec: JobSpec) -> bool:
    """Whether training alone determines it: no clock ended the run there, nor chose the step in a run with rollback."""
    if row.manifest.get("stop_reason") == "time_limit":
        return False
    every = spec.checkpoints.every.steps(spec.shape().run)
    return spec.rollback is None or is_final(row) or row.step % every == 0
