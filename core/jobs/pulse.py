"""How long ago anybody's reconciler made a round: what a readiness check wants to know."""

from sqlalchemy import select

from core.db.session import Database, now
from core.db.tables import service_state


def reconciler_lag(db: Database) -> float | None:
    """Seconds since the last tick of any reconciler, by the database's clock; None before the first of all."""
    query = select(now() - service_state.c.at).where(service_state.c.name == "tick")
    with db.read() as connection:
        found = connection.execute(query).scalar_one_or_none()
    return None if found is None else float(found)
