"""Readiness: how long ago a reconciler ran a round, and whether the database accepts writes."""

from sqlalchemy import Connection, select

from core.db.session import Database, database_now
from core.db.tables import service_state
from core.db.upsert import insert_or_update


def reconciler_lag(connection: Connection) -> float | None:
    """Seconds since the last round of any reconciler, by the database's clock; None before the first one."""
    query = select(database_now() - service_state.c.at).where(service_state.c.name == "tick")
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else float(found)


def reconciler_problem(lag: float | None, gap_seconds: float) -> str | None:
    """What is wrong with this lag; None if a reconciler ran a round within the last `gap_seconds`."""
    if lag is None:
        return "no round yet"
    return None if lag <= gap_seconds else f"the last round was {lag:.0f} s ago"


def probe_write(db: Database) -> None:
    """Write a row, and wait until it is on the disk. Errors of the write are raised as they are."""
    with db.write() as connection:
        insert_or_update(connection, service_state, {"name": "probe", "at": database_now()}, {"at": database_now()})
