"""The state row of a job: read under a lock, changed along the table of transitions."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, Select, select, update

from core.db.session import database_now
from core.db.tables import job, job_state
from core.errors import PreconditionFailed
from core.jobs.events.record import add_status_event
from core.lifecycle import TERMINAL, Desired, Status, check_transition

Fits = Callable[[int], bool]
"""Whether a version of a row is one that the caller has seen; called once the row is locked."""


@dataclass(frozen=True, slots=True)
class State:
    """A locked state row: valid until the transaction ends."""

    job_id: str
    status: Status
    desired: Desired
    attempt: int
    losses: int
    failures: int
    checkpoint_id: str | None
    version: int


def select_state() -> Select[Any]:
    """The columns of State."""
    row = job_state.c
    names = ("job_id", "status", "desired", "attempt", "losses", "failures", "checkpoint_id", "version")
    return select(*(row[name] for name in names))


def as_state(row: Row[Any]) -> State:
    return State(
        row.job_id,
        Status(row.status),
        Desired(row.desired),
        row.attempt,
        row.losses,
        row.failures,
        row.checkpoint_id,
        row.version,
    )


def lock_state(connection: Connection, job_id: str, *, exclusive: bool = True) -> State | None:
    """The state row, locked until the end of the transaction. (SQLite has locked the whole file already.)"""
    query = select_state().where(job_state.c.job_id == job_id).with_for_update(read=not exclusive)
    row = connection.execute(query).one_or_none()
    return None if row is None else as_state(row)


def require_version(fits: Fits | None, version: int) -> None:
    """Raise PreconditionFailed when the caller has seen another version; with None there is no condition."""
    if fits is not None and not fits(version):
        raise PreconditionFailed


def bump_version(connection: Connection, job_id: str) -> None:
    """Increment the version after a change that readers can see, so that they read the job again.

    The caller holds the row.
    """
    connection.execute(
        update(job_state).where(job_state.c.job_id == job_id).values(version=job_state.c.version + 1),
    )


@dataclass(frozen=True, slots=True)
class Transition:
    """A transition: the next status, a short sentence for the timeline, and columns to set along with it."""

    status: Status
    detail: str | None = None
    state: dict[str, Any] = field(default_factory=dict)
    job: dict[str, Any] = field(default_factory=dict)


def transition(connection: Connection, state: State, change: Transition) -> None:
    """Set the next status of a job whose row is locked. Only this function and the claim set a status.

    Raises:
        IllegalTransition: the table of transitions does not allow it.
    """
    check_transition(state.status, change.status)
    resting = {"status": change.status.value, "lease_until": None, "worker": None, "version": job_state.c.version + 1}
    queued = {"published_at": None} if change.status is Status.QUEUED else {}
    connection.execute(
        update(job_state).where(job_state.c.job_id == state.job_id).values(**resting, **queued, **change.state),
    )
    facts = dict(change.job)
    if change.status in TERMINAL:
        facts["finished_at"] = database_now()
    if change.status is Status.CANCELLED:
        facts.setdefault("stop_reason", "cancelled")
    if facts:
        connection.execute(update(job).where(job.c.id == state.job_id).values(**facts))
    add_status_event(connection, state.job_id, state.attempt, change.status.value, change.detail)
