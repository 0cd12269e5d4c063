"""What happened to a job, in order. Events of type "status" are its timeline."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from core.db.session import Database, now
from core.db.tables import event, job


@dataclass(frozen=True, slots=True)
class EventView:
    """One event; `id` grows, `at` is unix seconds, `type` one of status, checkpoint, log, warning."""

    id: int
    job_id: str
    attempt: int
    type: str
    at: float
    data: dict[str, Any]


def add_event(connection: Connection, job_id: str, attempt: int, type_: str, data: dict[str, Any]) -> None:
    """Write one event in the caller's transaction."""
    connection.execute(
        insert(event).values(job_id=job_id, attempt=attempt, type=type_, at=now(), data=data),
    )


def list_events(db: Database, owner: str, job_id: str, *, after: int = 0, limit: int = 100) -> list[EventView]:
    """The events of a job behind event id `after`, oldest first; none for a job of somebody else."""
    query = (
        select(event.c.id, event.c.job_id, event.c.attempt, event.c.type, event.c.at, event.c.data)
        .join(job, job.c.id == event.c.job_id)
        .where(event.c.job_id == job_id, job.c.owner == owner, event.c.id > after)
        .order_by(event.c.id)
        .limit(limit)
    )
    with db.read() as connection:
        return [EventView(*row) for row in connection.execute(query)]
