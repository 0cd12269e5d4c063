"""Pins: a pinned checkpoint is kept, whatever the retention policy says."""

from typing import Any, Final

from sqlalchemy import Connection, Row, select, update

from core.db.session import Database, database_now
from core.db.tables import checkpoint, job
from core.errors import Conflict, NotFound
from core.jobs.attempt.state import Fits, require_version
from core.jobs.checkpoints.records import CheckpointRow, apply_retention, get_checkpoint_row, mark_pending_delete
from core.jobs.verbs import lock_owned_job

MOST_TOLD: Final = 8  # named in one message


def pin_version(row: CheckpointRow | Row[Any, Any, Any, Any, Any]) -> int:
    """A version of the checkpoint as readers see it: only its pin and `superseded` can change."""
    return (row.pinned_at is not None) + 2 * bool(row.superseded)


def add_pin(db: Database, project: str, checkpoint_id: str, fits: Fits | None = None) -> CheckpointRow:
    """Keep the checkpoint until it is unpinned. Twice is the same, and the first time counts.

    Raises:
        NotFound: there is none with this id that belongs to this project, or it is corrupt.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it is being removed.
    """
    with db.write() as connection:
        row = _lock_checkpoint(connection, project, checkpoint_id)
        require_version(fits, pin_version(row))
        if row.status == "doomed":
            raise Conflict("The checkpoint is being removed; it is too late to pin it.")
        if row.status == "good" and row.pinned_at is None:
            connection.execute(
                update(checkpoint).where(checkpoint.c.id == checkpoint_id).values(pinned_at=database_now())
            )
    return get_checkpoint_row(db, project, checkpoint_id)


def remove_pin(db: Database, project: str, checkpoint_id: str, fits: Fits | None = None) -> None:
    """Remove the pin and apply the retention policy at once. Unpinning it twice is the same.

    Raises:
        NotFound: there is none with this id that belongs to this project.
        PreconditionFailed: `fits` does not take its version.
    """
    with db.write() as connection:
        row = _lock_checkpoint(connection, project, checkpoint_id)
        require_version(fits, pin_version(row))
        if row.pinned_at is None:
            return
        connection.execute(update(checkpoint).where(checkpoint.c.id == checkpoint_id).values(pinned_at=None))
        if row.superseded:
            mark_pending_delete(connection, row.job_id, [checkpoint_id])
        else:
            apply_retention(connection, row.job_id, row.kind)


def list_pinned(connection: Connection, job_id: str) -> list[str]:
    """The first few pinned checkpoints of a job."""
    row = checkpoint.c
    query = select(row.id).where(row.job_id == job_id, row.status == "good", row.pinned_at.is_not(None))
    return list(connection.execute(query.order_by(row.step, row.id).limit(MOST_TOLD)).scalars())


def _lock_checkpoint(connection: Connection, project: str, checkpoint_id: str) -> Row[Any, Any, Any, Any, Any]:
    """The row, read once its job is locked: the recorder of a checkpoint applies retention under the same lock."""
    row = checkpoint.c
    query = (
        select(row.job_id, row.kind, row.status, row.pinned_at, row.superseded)
        .join(job, job.c.id == row.job_id)
        .where(row.id == checkpoint_id, job.c.project == project)
    )
    found = connection.execute(query).one_or_none()
    if found is not None:
        lock_owned_job(connection, project, found.job_id)
        found = connection.execute(query).one_or_none()
    if found is None:
        raise NotFound("There is no checkpoint with this id.")
    return found
