"""New datasets: announced and then uploaded, by reference, or with the bytes that the project has prepared already."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Connection, insert, literal, select, update

from core.db.session import Database, database_now
from core.db.tables import dataset, upload_piece
from core.ids import new_id
from core.jobs.datasets.prepare import require_pieces, submit_prepare
from core.jobs.datasets.quotas import check_datasets
from core.jobs.datasets.rows import ID_PREFIX, DatasetRow, find_row, lock_row
from core.jobs.queue.submit import Idempotency, SubmitContext, claim_idempotency_key, move_promise

_RESULT: Final = ("version", "kind", "manifest", "warnings", "confined", "examples", "stored_bytes")
"""The columns of a ready dataset that follow from its bytes and options alone."""


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A dataset as its owner announces it. `source` says where the bytes are, if they are not sent."""

    name: str
    format: str = "auto"
    filename: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    bytes: int | None = None
    sha256: str | None = None
    source: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CreatedDataset:
    """The id of the dataset, and whether this call made it."""

    dataset_id: str
    created: bool


def create_dataset(
    db: Database,
    new: NewDataset,
    entry: SubmitContext,
    *,
    keep_seconds: float,
    idempotency: Idempotency | None = None,
) -> CreatedDataset:
    """A dataset that waits for its bytes; with a `source`, one that waits to be prepared.

    Where the project has the same bytes ready, prepared in the same way, nothing has to be sent: the answer is the
    newest dataset of this name if it has them, else a new one that is ready at once. Other projects are not looked at,
    so that no user can find out what they have.

    Raises:
        IdempotencyMismatch: the key was used before with another body.
        QuotaExceeded, StorageFull: the project has as many datasets, or bytes of them, as the limits allow.
    """
    with db.write() as connection:
        dataset_id = new_id(ID_PREFIX)
        if (first := claim_idempotency_key(connection, entry.project, idempotency, dataset_id)) != dataset_id:
            return CreatedDataset(first, created=False)
        known = _find_known(connection, entry.project, new)
        if known is not None and known.id == find_ready_id(connection, entry.project, new.name):
            if idempotency is not None:
                move_promise(connection, entry.project, idempotency, known.id)
            return CreatedDataset(known.id, created=False)
        check_datasets(connection, entry.project, entry.limits, new.bytes or 0)
        _insert_row(connection, dataset_id, new, entry, keep_seconds)
        if known is not None:
            _share_result(connection, dataset_id, known)
        elif new.source is not None:
            submit_prepare(connection, lock_row(connection, entry.project, dataset_id), entry)
    return CreatedDataset(dataset_id, created=True)


def correct_dataset(
    db: Database,
    dataset_id: str,
    entry: SubmitContext,
    *,
    wanted: str | None,
    options: Mapping[str, Any],
) -> str:
    """A new dataset of the same name and bytes, prepared again, with other options or as the format `wanted`.

    Raises:
        NotFound: there is no such dataset of this project.
        Conflict: it has no end yet, or its bytes are gone.
        QuotaExceeded, StorageFull: as for any dataset.
    """
    with db.write() as connection:
        row = lock_row(connection, entry.project, dataset_id)
        require_pieces(connection, row)
        known = NewDataset(row.name, wanted or row.format, row.filename, dict(options), row.received, row.sha256)
        check_datasets(connection, entry.project, entry.limits, row.received)
        fresh = new_id(ID_PREFIX)
        _insert_row(connection, fresh, known, entry, keep_seconds=0.0)
        facts = {"source": row.source, "received": row.received}
        connection.execute(update(dataset).where(dataset.c.id == fresh).values(**facts))
        _copy_pieces(connection, dataset_id, fresh)
        submit_prepare(connection, lock_row(connection, entry.project, fresh), entry)
    return fresh


def find_ready_id(connection: Connection, project: str, name: str) -> str | None:
    """The newest ready dataset that this name points at; None: there is none."""
    row = dataset.c
    query = select(row.id).where(row.project == project, row.name == name, row.status == "ready")
    found: str | None = connection.execute(query.order_by(row.id.desc()).limit(1)).scalar_one_or_none()
    return found


def _find_known(connection: Connection, project: str, new: NewDataset) -> DatasetRow | None:
    """The newest ready dataset of the project with these bytes and options, the one of the same name first."""
    if new.sha256 is None or new.source is not None:
        return None
    row = dataset.c
    query = select(row.id).where(row.project == project, row.sha256 == new.sha256, row.status == "ready")
    newest = query.order_by((row.name == new.name).desc(), row.id.desc()).with_for_update(read=True)
    for dataset_id in connection.execute(newest).scalars():
        found = find_row(connection, dataset_id)
        if found is not None and _is_prepared_alike(found, new):
            return found
    return None


def _is_prepared_alike(row: DatasetRow, new: NewDataset) -> bool:
    same_bytes = new.bytes is None or new.bytes == row.received
    return same_bytes and (row.format, row.options) == (new.format, new.options)


def _share_result(connection: Connection, dataset_id: str, known: DatasetRow) -> None:
    result = select(*(dataset.c[name] for name in _RESULT)).where(dataset.c.id == known.id)
    facts = dict(connection.execute(result).mappings().one())
    now = database_now()
    ended = {"status": "ready", "received": known.received, "finished_at": now, "expires_at": known.expires_at}
    connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(**facts, **ended))
    _copy_pieces(connection, known.id, dataset_id)


def _copy_pieces(connection: Connection, source_id: str, target_id: str) -> None:
    """Let the target have the pieces of the source, whose row the caller holds, so that they cannot expire now."""
    row = upload_piece.c
    pieces = select(literal(target_id), row.offset, row.bytes, row.key, row.sha256).where(row.dataset_id == source_id)
    names = ["dataset_id", "offset", "bytes", "key", "sha256"]
    connection.execute(insert(upload_piece).from_select(names, pieces))


def _insert_row(
    connection: Connection, dataset_id: str, new: NewDataset, entry: SubmitContext, keep_seconds: float
) -> None:
    connection.execute(
        insert(dataset).values(
            id=dataset_id,
            project=entry.project,
            owner=entry.owner,
            name=new.name,
            status="uploading",
            format=new.format,
            filename=new.filename,
            options=new.options,
            bytes=new.bytes,
            sha256=new.sha256,
            source=new.source,
            received=0,
            created_at=database_now(),
            expires_at=database_now() + keep_seconds,
        )
    )
