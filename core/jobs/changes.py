"""What an owner may change about a stored job, and how a job is deleted."""

import json
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from core.db.session import Database
from core.db.tables import checkpoint, job, job_label, job_state
from core.errors import Conflict, FieldProblem, InvalidSpec
from core.jobs.attempt.state import Fits, State, bump_version
from core.jobs.checkpoints.pins import list_pinned
from core.jobs.checkpoints.records import find_dependent_job
from core.jobs.verbs import lock_owned_job
from core.lifecycle import TERMINAL, displayed_status

MOST_PAIRS: Final = 16
NOBODY: Final = (
    ""  # owner and project of a deleted job: no user sees it any more; garbage collection removes its rows and objects
)


def update_job(  # noqa: PLR0913 - which job, what about it, and under which condition
    db: Database,
    project: str,
    job_id: str,
    changes: Mapping[str, Any],
    *,
    age_step: float,
    fits: Fits | None = None,
) -> None:
    """Change name, priority or metadata: those that `changes` names. The spec itself stays as it was accepted.

    Pairs of metadata are added or replaced, and removed by None. One point of priority moves an open job in the queue
    by `age_step` seconds of waiting. `fits`: whether the job's version is one that the caller has seen.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: the version is another one.
        Conflict: the job has ended, so that its priority has no effect.
        InvalidSpec: too much metadata.
    """
    with db.write() as connection:
        state = lock_owned_job(connection, project, job_id, fits)
        row = connection.execute(select(job.c.spec, job.c.edits).where(job.c.id == job_id)).one()
        edits = row.edits or {}
        before = json.loads(row.spec) | edits
        after = dict(changes)
        if "metadata" in changes:
            after["metadata"] = _merge_metadata(before.get("metadata") or {}, changes["metadata"])
        if all(before.get(name) == value for name, value in after.items()):
            return
        _write_edits(connection, job_id, edits | after)
        gained = after.get("priority", before["priority"]) - before["priority"]
        if gained:
            _require_open(state)
        place = {"rank": job_state.c.rank - gained * age_step, "version": job_state.c.version + 1}
        connection.execute(update(job_state).where(job_state.c.job_id == job_id).values(**place))


def mark_job_deleted(db: Database, project: str, job_id: str, fits: Fits | None = None) -> None:
    """Delete an ended job: users no longer see it at once; garbage collection removes its rows and objects later.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has not ended, a child needs its checkpoint, or one is pinned; `extra` holds the current_status.
    """
    with db.write() as connection:
        state = lock_owned_job(connection, project, job_id, fits)
        if state.status not in TERMINAL:
            status = displayed_status(state.status, state.desired)
            message = f"The job is {status}; cancel it, and delete it when it has ended."
            raise Conflict(message, extra={"current_status": status})
        if child := find_dependent_job(connection, job_id):
            message = f"{child} still needs one of its checkpoints; delete this job when that one has ended."
            raise Conflict(message, extra={"current_status": state.status.value, "needed_by": child})
        if kept := list_pinned(connection, job_id):
            message = f"Checkpoints of it are pinned: {', '.join(kept)}. Unpin them, and delete it then."
            raise Conflict(message, extra={"current_status": state.status.value, "pinned": kept})
        connection.execute(update(checkpoint).where(checkpoint.c.job_id == job_id).values(status="doomed"))
        connection.execute(update(job_state).where(job_state.c.job_id == job_id).values(owner=NOBODY, project=NOBODY))
        gone = update(job).where(job.c.id == job_id).values(owner=NOBODY, project=NOBODY).returning(job.c.parent_id)
        if parent := connection.execute(gone).scalar_one():
            bump_version(connection, parent)  # it shows its children


def _merge_metadata(pairs: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    merged = {key: value for key, value in ({**pairs, **changes}).items() if value is not None}
    if len(merged) > MOST_PAIRS:
        raise InvalidSpec(errors=(FieldProblem("/metadata", f"at most {MOST_PAIRS} pairs"),))
    return merged


def _write_edits(connection: Connection, job_id: str, edits: dict[str, Any]) -> None:
    named = {"name": edits["name"]} if "name" in edits else {}
    connection.execute(update(job).where(job.c.id == job_id).values(edits=edits, **named))
    if "metadata" in edits:
        connection.execute(delete(job_label).where(job_label.c.job_id == job_id))
        pairs = [{"job_id": job_id, "key": key, "value": value} for key, value in edits["metadata"].items()]
        if pairs:
            connection.execute(insert(job_label), pairs)


def _require_open(state: State) -> None:
    if state.status in TERMINAL:
        message = f"The job is {state.status}; its priority has no effect any more."
        raise Conflict(message, extra={"current_status": state.status.value})
