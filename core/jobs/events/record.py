"""The events of a job, in order. Events of type "status" are its timeline."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, insert, select

from core.db.session import Database, database_now
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
        insert(event).values(job_id=job_id, attempt=attempt, type=type_, at=database_now(), data=data),
    )


def add_status_event(connection: Connection, job_id: str, attempt: int, status: str, detail: str | None) -> None:
    """Write one line of a job's timeline in the caller's transaction."""
    add_event(connection, job_id, attempt, "status", {"status": status, "detail": detail})


def list_events(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    job_id: str,
    *,
    after: int = 0,
    limit: int = 100,
    types: Collection[str] | None = None,
) -> list[EventView]:
    """The events of a job after event id `after`, oldest first; none for a job of another project."""
    query = (
        events_after(job_id, after, limit, types).join(job, job.c.id == event.c.job_id).where(job.c.project == project)
    )
    with db.read() as connection:
        return [EventView(*row) for row in connection.execute(query)]


def events_after(job_id: str, after: int, limit: int, types: Collection[str] | None = None) -> Select[Any]:
    """The columns of EventView, of some types or of all."""
    row = event.c
    query = (
        select(row.id, row.job_id, row.attempt, row.type, row.at, row.data)
        .where(row.job_id == job_id, row.id > after)
        .order_by(row.id)
        .limit(limit)
    )
    return query if types is None else query.where(row.type.in_(types))
