"""What an owner can ask of a job. A wish is stored; whoever runs the job, or the reconciler, carries it out."""

from dataclasses import replace

from sqlalchemy import Connection, update

from core.db.session import Database
from core.db.tables import job, job_state
from core.errors import Conflict, NotFound
from core.jobs.events import add_event
from core.jobs.state import Change, State, as_state, move, select_state
from core.lifecycle import TERMINAL, Desired, Status, Verb, settled, shown, wanted


def cancel(db: Database, owner: str, job_id: str) -> None:
    """Stop the job and keep its last checkpoint. Saying it twice is the same.

    Raises:
        NotFound: there is no such job of this owner.
        Conflict: it has ended otherwise; `extra` holds the current_status.
    """
    with db.write() as connection:
        state = owned(connection, owner, job_id)
        desired = wanted(state.status, state.desired, Verb.CANCEL)
        if desired is None:
            status = shown(state.status, state.desired)
            raise Conflict(f"The job is {status}; it cannot be cancelled.", extra={"current_status": status})
        if desired is not state.desired and state.status not in TERMINAL:
            _wish(connection, state, desired)


def settle(connection: Connection, state: State) -> bool:
    """Carry out the wish for a job that nobody runs; say whether there was anything to do."""
    target = settled(state.status, state.desired)
    if target is None:
        return False
    move(connection, state, Change(target, "as its owner asked"))
    return True


def _wish(connection: Connection, state: State, desired: Desired) -> None:
    connection.execute(
        update(job_state)
        .where(job_state.c.job_id == state.job_id)
        .values(desired=desired.value, version=job_state.c.version + 1),
    )
    asked = replace(state, desired=desired)
    if not settle(connection, asked) and state.status is Status.RUNNING:
        add_event(
            connection,
            state.job_id,
            state.attempt,
            "status",
            {"status": shown(state.status, desired), "detail": "as its owner asked"},
        )


def owned(connection: Connection, owner: str, job_id: str) -> State:
    """The state row of an owner's job, locked; NotFound when there is none."""
    query = (
        select_state()
        .join(job, job.c.id == job_state.c.job_id)
        .where(job_state.c.job_id == job_id, job.c.owner == owner)
        .with_for_update(of=job_state)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound("There is no job with this id.")
    return as_state(row)
