"""Requests of an owner: cancel, pause, resume. The desired state is stored; the worker or the reconciler applies it."""

from dataclasses import replace
from typing import Final

from sqlalchemy import Connection, update

from core.db.session import Database
from core.db.tables import job, job_state
from core.errors import Conflict, NotFound
from core.jobs.attempt.state import (
    Fits,
    State,
    Transition,
    as_state,
    lock_state,
    require_version,
    select_state,
    transition,
)
from core.jobs.events.record import add_status_event
from core.lifecycle import TERMINAL, Desired, Status, Verb, desired_after, displayed_status, settled_status

_DONE: Final = {Verb.CANCEL: "cancelled", Verb.PAUSE: "paused", Verb.RESUME: "resumed"}


def request_cancel(db: Database, project: str, job_id: str, fits: Fits | None = None) -> None:
    """End the job and keep its last checkpoint. Requesting it twice is the same.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has ended otherwise; `extra` holds the current_status.
    """
    _apply_verb(db, project, job_id, Verb.CANCEL, fits)


def request_pause(db: Database, project: str, job_id: str, fits: Fits | None = None) -> None:
    """Let the job write a checkpoint, leave its slot and wait. Requesting it twice is the same.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has ended or is about to be cancelled; `extra` holds the current_status.
    """
    _apply_verb(db, project, job_id, Verb.PAUSE, fits)


def request_resume(db: Database, project: str, job_id: str, fits: Fits | None = None) -> None:
    """Let a paused job continue from its last checkpoint, at its former place in the queue. Twice is the same.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has ended or is about to be cancelled; `extra` holds the current_status.
    """
    _apply_verb(db, project, job_id, Verb.RESUME, fits)


def _apply_verb(db: Database, project: str, job_id: str, verb: Verb, fits: Fits | None) -> None:
    with db.write() as connection:
        state = lock_owned_job(connection, project, job_id, fits)
        desired = desired_after(state.status, state.desired, verb)
        if desired is None:
            status = displayed_status(state.status, state.desired)
            raise Conflict(f"The job is {status}; it cannot be {_DONE[verb]}.", extra={"current_status": status})
        if desired is not state.desired and state.status not in TERMINAL:
            _set_desired(connection, state, desired)


def cancel_open_job(connection: Connection, job_id: str) -> None:
    """Request that a job ends, in the caller's transaction; a job that has ended, or is gone, stays as it is."""
    state = lock_state(connection, job_id)
    if state is not None and state.status not in TERMINAL and state.desired is not Desired.CANCEL:
        _set_desired(connection, state, Desired.CANCEL)


def apply_desired(connection: Connection, state: State) -> bool:
    """Apply the desired state of a job that no worker runs; returns whether the status changed."""
    target = settled_status(state.status, state.desired)
    if target is None:
        return False
    transition(connection, state, Transition(target, "as its owner asked"))
    return True


def _set_desired(connection: Connection, state: State, desired: Desired) -> None:
    connection.execute(
        update(job_state)
        .where(job_state.c.job_id == state.job_id)
        .values(desired=desired.value, version=job_state.c.version + 1),
    )
    asked = replace(state, desired=desired)
    if not apply_desired(connection, asked) and state.status is Status.RUNNING:
        status = displayed_status(state.status, desired)
        add_status_event(connection, state.job_id, state.attempt, status, "as its owner asked")


def lock_owned_job(connection: Connection, project: str, job_id: str, fits: Fits | None = None) -> State:
    """The state row of a project's job, locked.

    Raises:
        NotFound: there is none.
        PreconditionFailed: `fits` does not take its version.
    """
    query = (
        select_state()
        .join(job, job.c.id == job_state.c.job_id)
        .where(job_state.c.job_id == job_id, job.c.project == project)
        .with_for_update(of=job_state)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("There is no job with this id.")
    state = as_state(row)
    require_version(fits, state.version)
    return state
