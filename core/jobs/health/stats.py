"""Statistics of the service, read from the database: every api reports the same numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from core.db.session import Database, database_now
from core.db.tables import event, job_state
from core.jobs.health.counters import FENCED_WRITES, TAKEOVERS, read_count
from core.jobs.health.readiness import reconciler_lag
from core.jobs.health.workers import FORGET_SECONDS, SlotUsage, count_slots
from core.lifecycle import Status


@dataclass(frozen=True, slots=True)
class ServiceStats:
    """Seconds are by the database's clock, and 0.0 where nothing waits; `reconciler_lag` is None before any round."""

    jobs: Mapping[Status, int]
    queue_oldest: float  # since the job that waits longest was queued
    lease_lag: float  # since the oldest lease of a running job expired
    reconciler_lag: float | None
    takeovers: int
    fenced_writes: int
    slots: Mapping[str, SlotUsage]  # of the live workers, by kind


def read_service_stats(db: Database, lost_after: float = FORGET_SECONDS) -> ServiceStats:
    """Read all statistics; workers that have not reported for more than `lost_after` seconds do not count."""
    row = job_state.c
    with db.read() as connection:
        found = connection.execute(select(row.status, func.count()).group_by(row.status)).all()
        counts = {Status(status): int(count) for status, count in found}
        lease = select(database_now() - func.min(row.lease_until)).where(row.status == Status.RUNNING.value)
        return ServiceStats(
            jobs={status: counts.get(status, 0) for status in Status},
            queue_oldest=max(0.0, _read_seconds(connection, _select_oldest()) or 0.0),
            lease_lag=max(0.0, _read_seconds(connection, lease) or 0.0),
            reconciler_lag=reconciler_lag(connection),
            takeovers=read_count(connection, TAKEOVERS),
            fenced_writes=read_count(connection, FENCED_WRITES),
            slots=count_slots(connection, lost_after),
        )


def _select_oldest() -> Any:
    """Seconds since the oldest queued job was queued. A job that returns to the queue counts from its return."""
    since = (
        select(func.max(event.c.at).label("at"))
        .join(job_state, job_state.c.job_id == event.c.job_id)
        .where(job_state.c.status == Status.QUEUED.value, event.c.type == "status")
        .group_by(event.c.job_id)
        .subquery()
    )
    return select(database_now() - func.min(since.c.at))


def _read_seconds(connection: Connection, query: Any) -> float | None:
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else float(found)
