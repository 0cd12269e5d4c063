"""Quotas: how many jobs of one project may wait and run, and how many bytes they may store. The transaction that adds a
job also counts.

On PostgreSQL two transactions do not see each other's rows, so those that count jobs of one project take a lock. SQLite
has one writer anyway.
"""

from typing import Final

from sqlalchemy import ColumnElement, Connection, func, not_, or_, select

from core.db.tables import checkpoint, job, job_state
from core.errors import QuotaExceeded, StorageFull
from core.lifecycle import LIGHT, Status

_SPACE: Final = 0x6261_736E  # class of our advisory locks; any fixed number that no other program on the database uses


def check_queue(connection: Connection, project: str, most: int | None) -> None:
    """Raise QuotaExceeded when `most` jobs of this project wait already; otherwise one more may wait.

    Paused ones count too: they return to the queue when they are resumed.
    """
    if most is None:
        return
    lock_project(connection, project)
    used = _count_jobs(connection, project, Status.QUEUED, Status.PAUSED)
    if used >= most:
        what = "1 job is" if used == 1 else f"{used} jobs are"
        message = f"{what} queued or paused already, and this key may have {most}; cancel some, or let them run."
        raise QuotaExceeded(message, extra={"limit": "queued_jobs", "allowed": most, "used": used})


def check_storage(connection: Connection, project: str, most: int | None) -> None:
    """Raise StorageFull when the checkpoints of this project's jobs take `most` bytes or more."""
    if most is None:
        return
    query = (
        select(func.coalesce(func.sum(func.coalesce(checkpoint.c.stored, checkpoint.c.bytes)), 0))
        .join(job, job.c.id == checkpoint.c.job_id)
        .where(job.c.project == project)
    )
    stored = int(connection.execute(query).scalar_one())
    if stored >= most:
        message = f"The checkpoints of your jobs take {stored:,} of {most:,} bytes; delete jobs that you do not need."
        raise StorageFull(message, extra={"limit": "stored_bytes", "allowed": most, "used": stored})


def below_limit() -> ColumnElement[bool]:
    """Whether the running limit of a row of job_state admits it: a part of the claim's one statement.

    Jobs of the light lane neither count nor are limited: each worker runs one of them at a time.

    Few projects have running jobs. They are counted once, and the queue is read in the order of its index.
    """
    inner = job_state.alias("busy_row").c
    busy = (
        select(inner.project, func.count().label("running"))
        .where(inner.status == Status.RUNNING.value, inner.project.is_not(None), inner.needs != LIGHT)
        .group_by(inner.project)
        .cte("busy")
    )
    row = job_state.c
    full = select(busy.c.project).where(busy.c.project == row.project, busy.c.running >= row.most_running)
    return or_(row.needs == LIGHT, not_(full.correlate(job_state).exists()))


def exceeds_running_limit(connection: Connection, project: str | None, most: int | None, needs: str) -> bool:
    """Whether a job that was just claimed exceeds the limit, since a concurrent claim was not visible: undo it then."""
    if project is None or most is None or needs == LIGHT or connection.dialect.name == "sqlite":
        return False
    lock_project(connection, project)
    return _count_jobs(connection, project, Status.RUNNING, light=False) > most


def _count_jobs(connection: Connection, project: str, *statuses: Status, light: bool = True) -> int:
    row = job_state.c
    query = select(func.count()).where(row.project == project, row.status.in_([status.value for status in statuses]))
    if not light:
        query = query.where(row.needs != LIGHT)
    return int(connection.execute(query).scalar_one())


def lock_project(connection: Connection, project: str) -> None:
    """Let no other transaction count what this project has before this one has ended."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_SPACE, func.hashtext(project))))
