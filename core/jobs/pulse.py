"""What a readiness check wants to know: how long ago a reconciler made a round, and whether writes are taken."""

from sqlalchemy import select

from core.db.session import Database, now
from core.db.tables import service_state
from core.db.upsert import insert_or_update


def reconciler_lag(db: Database) -> float | None:
    """Seconds since the last tick of any reconciler, by the database's clock; None before the first of all."""
    query = select(now() - service_state.c.at).where(service_state.c.name == "tick")
    with db.read() as connection:
        found = connection.execute(query).scalar_one_or_none()
    return None if found is None else float(found)


def try_a_write(db: Database) -> None:
    """Write a row, and wait until it is on the disk; raises what such a write raises."""
    with db.write() as connection:
        insert_or_update(connection, service_state, {"name": "probe", "at": now()}, {"at": now()})
