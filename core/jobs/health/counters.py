"""Counters that outlive processes and jobs. They only grow, so that a monitor can take differences."""

from typing import Final

from sqlalchemy import Connection, select, update

from core.db.tables import service_state
from core.db.upsert import insert_if_absent

TAKEOVERS: Final = "count.takeovers"
FENCED_WRITES: Final = "count.fenced_writes"


def add_count(connection: Connection, name: str, count: int = 1) -> None:
    """Add to a count in the caller's transaction, so that it holds exactly what was committed."""
    if count:
        insert_if_absent(connection, service_state, name=name, at=0)
        row = service_state.c
        connection.execute(update(service_state).where(row.name == name).values(at=row.at + count))


def read_count(connection: Connection, name: str) -> int:
    """The present value of the counter."""
    query = select(service_state.c.at).where(service_state.c.name == name)
    return int(connection.execute(query).scalar_one_or_none() or 0)
