"""Checkpoints whose files were missing and are present again.

A checkpoint whose files are not in the store (the right one, see store_identity.py) is marked corrupt, with the moment
in `missing_at`, and its job falls back to an older one. The points after that step are set aside. All of this can be
undone until the job stores a new resumable checkpoint: the files may have been missing only for a while.
"""

from typing import Any, Final

from sqlalchemy import Connection, and_, delete, exists, func, insert, literal, or_, select, update

from core.db.session import Database
from core.db.tables import checkpoint, job, job_state, metric_chunk, metric_chunk_aside
from core.jobs.attempt.fence import Fence, lock_fence
from core.jobs.attempt.state import State, lock_state
from core.jobs.checkpoints.records import CheckpointRow, apply_retention, find_checkpoint
from core.jobs.events.record import add_event
from core.jobs.metrics.chunks import MOST_ROLLBACKS, drop_points_after, write_generation
from core.lifecycle import Status
from core.store.base import Digest, Store, StoreMissing, StoreUnreadable, digest_of

BATCH: Final = 20


def missing_checkpoints(db: Database, job_id: str, after: int) -> list[CheckpointRow]:
    """Missing checkpoints of the job, or of the job that it branched off, after step `after`; the newest first.

    Only those that it can still resume from: it has stored no other resumable checkpoint since.
    """
    row, child, later = checkpoint.c, job.alias("child").c, checkpoint.alias("own").c
    same = or_(row.step == child.parent_step, and_(child.parent_verb == "retry", row.step < child.parent_step))
    origin = exists().where(child.id == job_id, child.parent_id == row.job_id, same)
    moved = exists().where(later.job_id == job_id, later.resumable == 1, later.created_at > row.missing_at)
    query = _select_missing().where(or_(row.job_id == job_id, origin), row.step > after, ~moved)
    with db.read() as connection:
        ids = connection.execute(query.order_by(checkpoint.c.step.desc(), checkpoint.c.id.desc())).scalars().all()
        rows = [find_checkpoint(connection, id_) for id_ in ids]
    return [row for row in rows if row is not None]


def revive_checkpoint(db: Database, fence: Fence, checkpoint_id: str) -> None:
    """Its files are present again: the job continues from it, with the points up to it. Repeating it is harmless.

    Raises:
        Fenced: this attempt is over.
    """
    with db.write() as connection:
        state = lock_fence(connection, fence, exclusive=True)
        if state.checkpoint_id != checkpoint_id:
            _mark_revived(connection, state, checkpoint_id, write_generation(fence.attempt, 0))


def revive_missing(db: Database, store: Store) -> int:
    """Look again for some missing checkpoints of jobs that no worker runs; returns how many are present again.

    Raises:
        StoreTransient, StoreRefused: the store is unavailable, so that the files cannot be looked for.
    """
    state, stands = job_state.c, checkpoint.alias("stands").c
    behind = exists().where(stands.id == state.checkpoint_id, stands.step >= checkpoint.c.step)
    query = (
        _select_missing()
        .join(job_state, state.job_id == checkpoint.c.job_id)
        .where(state.status != Status.RUNNING.value, or_(state.status != Status.SUCCEEDED.value, behind))
        .order_by(func.random())  # checkpoints that stay missing must not keep the others from being checked
        .limit(BATCH)
    )
    with db.read() as connection:
        rows = [find_checkpoint(connection, id_) for id_ in connection.execute(query).scalars().all()]
    return sum(_recheck_checkpoint(db, store, row) for row in rows if row is not None)


def _recheck_checkpoint(db: Database, store: Store, row: CheckpointRow) -> bool:
    files = [(f"{row.key}/{file['name']}", Digest(file["sha256"], int(file["bytes"]))) for file in row.files.values()]
    try:
        # Sizes first: while a file is missing, none of the others is read.
        whole = [store.size(key) == digest.bytes for key, digest in files]
        whole += [digest_of(store, key) == digest for key, digest in files] if all(whole) else []
    except (StoreMissing, StoreUnreadable):
        return False
    if all(whole):
        return _revive_idle_job(db, row)
    with db.write() as connection:  # the files hold other bytes: they are not read again
        connection.execute(update(checkpoint).where(checkpoint.c.id == row.id).values(missing_at=None))
    return False


def _select_missing() -> Any:
    """Ids of the missing checkpoints that no later one has replaced."""
    row, later = checkpoint.c, checkpoint.alias("later").c
    replaced = exists().where(later.job_id == row.job_id, later.resumable == 1, later.created_at > row.missing_at)
    return select(row.id).where(row.status == "corrupt", row.missing_at.is_not(None), row.resumable == 1, ~replaced)


def _revive_idle_job(db: Database, row: CheckpointRow) -> bool:
    with db.write() as connection:
        state = lock_state(connection, row.job_id)
        still = connection.execute(_select_missing().where(checkpoint.c.id == row.id)).first()
        if state is None or state.status is Status.RUNNING or still is None:
            return False
        if state.status is Status.SUCCEEDED and row.step > _current_step(connection, state):
            return False  # its curves belong to the way that it took without this checkpoint
        # Above every generation that the last attempt has written, and below those of the next attempt.
        _mark_revived(connection, state, row.id, write_generation(state.attempt, MOST_ROLLBACKS - 1))
        return True


def _mark_revived(connection: Connection, state: State, checkpoint_id: str, written: int) -> None:
    row = checkpoint.c
    back = and_(row.id == checkpoint_id, row.status == "corrupt")
    connection.execute(update(checkpoint).where(back).values(status="good", missing_at=None))
    found = find_checkpoint(connection, checkpoint_id)
    if found is None or found.status != "good":
        return
    step = _current_step(connection, state)
    ahead = found.step > step
    if ahead:
        _restore_points(connection, state.job_id, step, found.step, written)
    place = {"checkpoint_id": found.id} if ahead else {}
    this = update(job_state).where(job_state.c.job_id == state.job_id)
    connection.execute(this.values(version=job_state.c.version + 1, **place))
    data = {
        "code": "checkpoint_revived",
        "message": f"the files of checkpoint {found.id} are back" + (f"; continuing from step {found.step}" * ahead),
        "checkpoint": found.id,
    }
    add_event(connection, state.job_id, state.attempt, "warning", data)
    apply_retention(connection, state.job_id, found.kind)


def _current_step(connection: Connection, state: State) -> int:
    """The step that the job continues from."""
    current = find_checkpoint(connection, state.checkpoint_id) if state.checkpoint_id else None
    return current.step if current else 0


def _restore_points(connection: Connection, job_id: str, begin: int, end: int, written: int) -> None:
    """Put back the points between the two steps that were set aside; they replace those written since."""
    drop_points_after(connection, job_id, begin)
    row = metric_chunk_aside.c
    ours = and_(row.job_id == job_id, row.after_step >= begin, row.after_step < end)
    names = [column.name for column in metric_chunk.columns]
    own: dict[str, Any] = {"attempt": literal(written)}
    copied = select(*(own.get(name, row[name]).label(name) for name in names)).where(ours)
    connection.execute(insert(metric_chunk).from_select(names, copied))
    connection.execute(delete(metric_chunk_aside).where(ours))
