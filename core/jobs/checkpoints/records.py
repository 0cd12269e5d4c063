"""Checkpoints as rows: a checkpoint exists when its row does, and the row is written under the fence."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, Row, Select, Subquery, and_, case, insert, literal, or_, select, update

from core.db.session import Database, database_now
from core.db.tables import analysis_input, checkpoint, job, job_state
from core.errors import NotFound
from core.ids import new_id
from core.jobs.attempt.fence import Fence, fenced_transaction, lock_fence
from core.jobs.events.record import add_event
from core.jobs.kinds import KINDS, TRAIN, Retention, find_kind
from core.jobs.metrics.chunks import Chunk, delete_aside_points, put_chunks, set_aside_points
from core.lifecycle import TERMINAL
from core.recipe.monitor import default_mode


@dataclass(frozen=True, slots=True)
class NewCheckpoint:
    """A checkpoint whose files are in the store under `key`; `sha256` and `bytes` are those of its weights file.

    `id` makes a repeated write harmless: create the object once, and write it until that succeeds.
    """

    step: int
    epoch: int
    kind: str
    key: str
    sha256: str
    bytes: int
    files: dict[str, Any]
    metrics: dict[str, Any]
    manifest: dict[str, Any]
    id: str = field(default_factory=lambda: new_id("ckpt"))


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint as the database has it. `status` is `good`, `corrupt` or `doomed` (marked for deletion)."""

    id: str
    job_id: str
    attempt: int
    step: int
    epoch: int
    kind: str
    key: str
    sha256: str
    bytes: int
    files: dict[str, Any]
    metrics: dict[str, Any]
    manifest: dict[str, Any]
    status: str
    created_at: float
    pinned_at: float | None
    superseded: int | None


def record_checkpoint(
    db: Database,
    fence: Fence,
    row: NewCheckpoint,
    chunks: Iterable[Chunk],
    *,
    resumable: bool,
) -> CheckpointRow:
    """One fenced transaction: the points before it, its row, and for a resumable one the job's new position.

    A checkpoint of the same kind and step, left by an earlier attempt, is replaced. Retention: of kind `best` one, of
    `last` the newest `keep_last` and the best `keep_best`, of `cycle_end` the newest `keep_cycles`, of `snapshot` as
    many as the ensemble has members. A resumable checkpoint replaces all later ones: the run has gone back before them.
    Pinned ones are kept in addition; no run resumes from a replaced one. Checkpoints to delete are only marked here:
    garbage collection removes the objects, then the rows.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced_transaction(db, fence, exclusive=True) as connection:
        known = find_checkpoint(connection, row.id)
        if known is not None:
            return known
        put_chunks(connection, fence.job_id, fence.attempt, chunks)
        _mark_superseded(connection, fence.job_id, _replaced_ids(connection, fence.job_id, row, resumable=resumable))
        connection.execute(
            insert(checkpoint).values(
                job_id=fence.job_id,
                attempt=fence.attempt,
                resumable=int(resumable),
                status="good",
                created_at=database_now(),
                stored=sum(int(file["bytes"]) for file in row.files.values()),
                **asdict(row),
            ),
        )
        seen = {"version": job_state.c.version + 1}
        ahead = {"checkpoint_id": row.id, "losses": 0} if resumable else {}
        connection.execute(update(job_state).where(job_state.c.job_id == fence.job_id).values(**seen, **ahead))
        if resumable:
            delete_aside_points(connection, fence.job_id)
        apply_retention(connection, fence.job_id, row.kind)
        data = {"id": row.id, "step": row.step, "kind": row.kind}
        add_event(connection, fence.job_id, fence.attempt, "checkpoint", data)
        written = find_checkpoint(connection, row.id)
    if written is None:
        raise RuntimeError(f"checkpoint {row.id} was not written")
    return written


def mark_corrupt(db: Database, fence: Fence, checkpoint_id: str, *, missing: bool = False) -> CheckpointRow | None:
    """Its bytes do not match its digest: fall back to the newest good resumable one before it, or to none.

    One whose files are not in the store is `missing`: if they return, it is good again, see missing.py.

    Raises:
        Fenced: this attempt is over.
    """
    with db.write() as connection:
        state = lock_fence(connection, fence, exclusive=True)
        mine = literal(state.checkpoint_id == checkpoint_id)  # or its parent's, while it continues from there
        connection.execute(
            update(checkpoint)
            .where(checkpoint.c.id == checkpoint_id, or_(checkpoint.c.job_id == fence.job_id, mine))
            .values(status="corrupt", missing_at=database_now() if missing else None),
        )
        if state.checkpoint_id != checkpoint_id:
            return None if state.checkpoint_id is None else find_checkpoint(connection, state.checkpoint_id)
        older = next(reversed(list_resumable(connection, fence.job_id)), None) or find_origin_checkpoint(
            connection, fence.job_id
        )
        connection.execute(
            update(job_state)
            .where(job_state.c.job_id == fence.job_id)
            .values(checkpoint_id=older.id if older else None, version=job_state.c.version + 1),
        )
        step = older.step if older else 0
        set_aside_points(connection, fence.job_id, step)
        problem = "is not in the store" if missing else "does not match its digest"
        data = {
            "code": "checkpoint_corrupt",
            "message": f"checkpoint {checkpoint_id} {problem}; continuing from step {step}",
            "checkpoint": checkpoint_id,
        }
        add_event(connection, fence.job_id, fence.attempt, "warning", data)
    return older


def list_checkpoint_rows(db: Database, project: str, job_id: str) -> list[CheckpointRow]:
    """The good checkpoints of a job, oldest first.

    Raises:
        NotFound: there is no such job of this project.
    """
    with db.read() as connection:
        if connection.execute(select(job.c.id).where(job.c.id == job_id, job.c.project == project)).first() is None:
            raise NotFound("There is no job with this id.")
        query = (
            _select_rows()
            .where(checkpoint.c.job_id == job_id, checkpoint.c.status == "good")
            .order_by(checkpoint.c.step, checkpoint.c.id)
        )
        return [_as_row(row) for row in connection.execute(query)]


def get_checkpoint_row(db: Database, project: str, checkpoint_id: str) -> CheckpointRow:
    """One good checkpoint.

    Raises:
        NotFound: there is none with this id that belongs to this project.
    """
    query = (
        _select_rows()
        .join(job, job.c.id == checkpoint.c.job_id)
        .where(checkpoint.c.id == checkpoint_id, checkpoint.c.status == "good")
        .where(job.c.project == project, job.c.kind == TRAIN.name)
    )
    with db.read() as connection:
        found = connection.execute(query).one_or_none()
    if found is None:
        raise NotFound("There is no checkpoint with this id.")
    return _as_row(found)


def find_dependent_job(connection: Connection, job_id: str) -> str | None:
    """A job or analysis that has not ended and may still need this one, a checkpoint of it, or its result."""
    lent = connection.execute(select(_dependent_jobs(job_id).c.borrower).limit(1)).scalar_one_or_none()
    if lent is not None:
        return str(lent)
    row, state = analysis_input.c, job_state.c
    query = select(row.analysis_id).join(job_state, state.job_id == row.analysis_id)
    open_ = state.status.not_in([status.value for status in TERMINAL])
    return connection.execute(query.where(row.job_id == job_id, open_).limit(1)).scalar_one_or_none()


def _dependent_jobs(job_id: str) -> Subquery:
    """(borrower, checkpoint_id): other open jobs that continue from, begin with, or read one of its checkpoints.

    The result of an analysis is a checkpoint too, and another analysis may read it. A borrower need not be its child:
    the retry of a child without a checkpoint of its own continues from the same checkpoint as that child.
    """
    row, kept = job_state.c, checkpoint.c
    alive = and_(kept.job_id == job_id, row.job_id != job_id, row.status.not_in([status.value for status in TERMINAL]))
    columns = select(row.job_id.label("borrower"), kept.id.label("checkpoint_id"))
    stands = columns.join(kept.id.table, kept.id == row.checkpoint_id).where(alive)
    begins = (
        columns.join(job, job.c.id == row.job_id)
        .join(kept.id.table, kept.id == job.c.initial_id)
        .where(alive, row.checkpoint_id.is_(None))
    )
    looked = analysis_input.c
    looks = (
        columns.join(looked.analysis_id.table, looked.analysis_id == row.job_id)
        .join(kept.id.table, kept.id == looked.checkpoint_id)
        .where(alive)
    )
    return stands.union_all(begins, looks).subquery("loans")


def find_checkpoint(connection: Connection, checkpoint_id: str) -> CheckpointRow | None:
    """The row with this id, whatever its status."""
    found = connection.execute(_select_rows().where(checkpoint.c.id == checkpoint_id)).one_or_none()
    return None if found is None else _as_row(found)


def list_resumable(connection: Connection, job_id: str) -> list[CheckpointRow]:
    """The checkpoints that a job can resume from, by step."""
    known = checkpoint.c
    query = _select_rows().where(known.job_id == job_id, known.status == "good", known.resumable == 1)
    return [_as_row(row) for row in connection.execute(query.order_by(known.step, known.id))]


def _select_rows() -> Select[Any]:
    return select(*(checkpoint.c[column.name] for column in fields(CheckpointRow)))


def _as_row(row: Row[Any]) -> CheckpointRow:
    return CheckpointRow(**row._asdict())


def find_origin_checkpoint(connection: Connection, job_id: str) -> CheckpointRow | None:
    """The checkpoint of its parent that a job continued from, if it still exists; of a retry, the newest before it."""
    child, row = job.alias("child").c, checkpoint.c
    query = (
        _select_rows()
        .join(child.id.table, row.job_id == child.parent_id)
        .where(child.id == job_id, row.status == "good", row.resumable == 1)
        .where(or_(row.step == child.parent_step, and_(child.parent_verb == "retry", row.step < child.parent_step)))
        .order_by(row.step.desc(), row.id.desc())
        .limit(1)
    )
    found = connection.execute(query).one_or_none()
    return None if found is None else _as_row(found)


def _replaced_ids(connection: Connection, job_id: str, row: NewCheckpoint, *, resumable: bool) -> Sequence[str]:
    known = checkpoint.c
    same = known.kind == row.kind if row.kind == "best" else and_(known.kind == row.kind, known.step == row.step)
    void = or_(same, and_(known.step > row.step, known.status == "good")) if resumable else same
    query = select(known.id).where(known.job_id == job_id, void)
    return connection.execute(query).scalars().all()


def apply_retention(connection: Connection, job_id: str, kind: str) -> None:
    """Mark the checkpoints of a kind that exceed the policy for deletion; the caller has locked the job's state row."""
    mark_pending_delete(connection, job_id, _beyond_retention(connection, job_id, kind))


def _beyond_retention(connection: Connection, job_id: str, kind: str) -> Sequence[str]:
    """Ids of a kind that exceed the policy: of `last` those neither among the newest nor the best, else the oldest.

    Pinned ones are not counted, so that enough other resumable ones are always kept.
    """
    whose, text = connection.execute(select(job.c.kind, job.c.spec).where(job.c.id == job_id)).one()
    whose_kind = find_kind(KINDS, whose)
    policy = whose_kind.keep_checkpoints(json.loads(text)) if whose_kind else Retention()
    most = policy.newest.get(kind)
    if most is None:
        return ()
    row = checkpoint.c
    query = (
        select(row.id, row.step, row.metrics)
        .where(row.job_id == job_id, row.kind == kind, row.status == "good", row.pinned_at.is_(None))
        .order_by(row.step.desc(), row.id.desc())
    )
    rows = connection.execute(query).all()
    kept = {one.id for one in rows[:most]} | (set(_best_ids(rows, policy)) if kind == "last" else set())
    return [one.id for one in rows if one.id not in kept]


def _best_ids(rows: Sequence[Any], policy: Retention) -> Sequence[str]:
    """The best `policy.best`; of equal ones the oldest, which is nearest to the evaluation that they share.

    A checkpoint without a finite value is no candidate.
    """
    sign = 1 if default_mode(policy.monitor) == "min" else -1
    judged = [
        (sign * value, one.step, one.id)
        for one in rows
        if isinstance(value := one.metrics.get(policy.monitor), int | float) and math.isfinite(value)
    ]
    return [id_ for _, _, id_ in sorted(judged)[: policy.best]]


def mark_pending_delete(connection: Connection, job_id: str, ids: Sequence[str]) -> None:
    """Mark these checkpoints for deletion, except those that are pinned or that another open job needs."""
    if ids:
        row = checkpoint.c
        free = and_(row.id.in_(ids), row.id.not_in(select(_dependent_jobs(job_id).c.checkpoint_id)))
        connection.execute(update(checkpoint).where(free, row.pinned_at.is_(None)).values(status="doomed"))


def _mark_superseded(connection: Connection, job_id: str, ids: Sequence[str]) -> None:
    """Mark replaced checkpoints: they are deleted, and the pinned ones are kept as weights that no run resumes from."""
    mark_pending_delete(connection, job_id, ids)
    if ids:
        row = checkpoint.c
        aside = and_(row.id.in_(ids), row.pinned_at.is_not(None), row.status == "good")
        lent = row.id.in_(select(_dependent_jobs(job_id).c.checkpoint_id))
        values = {"superseded": 1, "resumable": case((lent, row.resumable), else_=0)}
        connection.execute(update(checkpoint).where(aside).values(**values))
