"""The job that prepares a dataset: how it is made, and what the worker writes in its fenced transactions.

The worker first calls `claim_version`, puts the shards and then manifest.json into the store, and calls `mark_ready` in
the transaction that ends the job. A dataset whose job ends without one of the `mark_…` functions has the status of its
job (core/jobs/datasets/views.py).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select, update

from core.db.session import Database, database_now
from core.db.tables import dataset, dataset_version, upload_piece
from core.db.upsert import insert_if_absent
from core.errors import Conflict, Unavailable
from core.ids import new_id
from core.jobs.attempt.state import lock_state
from core.jobs.datasets.rows import DatasetRow, lock_row
from core.jobs.kinds import PREPARE
from core.jobs.queue.submit import SubmitContext, insert_job
from core.jobs.verbs import cancel_open_job
from core.lifecycle import TERMINAL, Status
from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec

KEEP_PIECES_SECONDS: Final = 86_400.0
"""How long the uploaded pieces stay after the preparation has ended: to prepare them again with corrections."""
MOST_ERRORS: Final = 100
LONGEST_TEXT: Final = 300


def submit_prepare(connection: Connection, row: DatasetRow, entry: SubmitContext) -> str:
    """Queue the job that prepares this dataset; returns its id. The caller holds the row.

    Raises:
        QuotaExceeded: as many jobs of this project wait as the limits allow.
        StorageFull: this project stores as much as the limits allow.
    """
    document = {"dataset": row.id, "format": row.format, "options": row.options, "filename": row.filename}
    spec = PrepareSpec.model_validate_json(json.dumps({**document, "name": row.name}))
    job_id = new_id(PREPARE.id_prefix)
    insert_job(connection, PREPARE, job_id, spec, entry)
    fresh = {"status": "queued", "job_id": job_id, "expires_at": None, "error": None, "errors": None}
    connection.execute(update(dataset).where(dataset.c.id == row.id).values(**fresh, finished_at=None))
    return job_id


def claim_version(connection: Connection, dataset_id: str, version: str) -> None:
    """Keep the objects below `datasets/<version>/` from being removed, before the first of them is written.

    Raises:
        Unavailable: its objects are being removed at this moment; the same call succeeds in a moment.
    """
    insert_if_absent(connection, dataset_version, version=version, doomed_at=None)
    held = select(dataset_version.c.doomed_at).where(dataset_version.c.version == version)
    if connection.execute(held.with_for_update()).scalar_one() is not None:
        raise Unavailable("The objects of this version are being removed; they can be written again in a moment.")
    connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(version=version))


def mark_ready(
    connection: Connection,
    dataset_id: str,
    manifest: DatasetManifest,
    stored_bytes: int,
    confined: Mapping[str, Any],
) -> bool:
    """The dataset can be used; all of its objects are in the store. False: it was deleted or prepared meanwhile.

    Raises:
        Unavailable: see `claim_version`.
    """
    version = manifest.version()
    claim_version(connection, dataset_id, version)
    facts = {
        "kind": manifest.kind,
        "examples": manifest.examples,
        "stored_bytes": stored_bytes,
        "manifest": manifest.canonical_json().decode(),
        "warnings": list(manifest.warnings),
        "confined": dict(confined),
        "sha256": manifest.source_sha256 or None,
    }
    return _end(connection, dataset_id, "ready", **facts)


def mark_refused(
    connection: Connection,
    dataset_id: str,
    errors: Sequence[Mapping[str, Any]],
    confined: Mapping[str, Any] | None = None,
) -> bool:
    """The file cannot be used: errors of {file, row, column, code, detail}. False: as for `mark_ready`."""
    kept = [_cut_texts(each) for each in errors[:MOST_ERRORS]]
    return _end(connection, dataset_id, "refused", errors=kept, confined=None if confined is None else dict(confined))


def mark_failed(connection: Connection, dataset_id: str, error: Mapping[str, Any]) -> bool:
    """The service failed: {code, message, remedy}; it can be prepared again. False: as for `mark_ready`."""
    return _end(connection, dataset_id, "failed", error=_cut_texts(error))


def _end(connection: Connection, dataset_id: str, status: str, **facts: Any) -> bool:
    now = database_now()
    ended = {"status": status, "finished_at": now, "expires_at": now + KEEP_PIECES_SECONDS}
    mine = update(dataset).where(dataset.c.id == dataset_id, dataset.c.status == "queued", dataset.c.project != "")
    return connection.execute(mine.values(**ended, **facts)).rowcount == 1


def _cut_texts(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: each[:LONGEST_TEXT] if isinstance(each, str) else each for name, each in document.items()}


def prepare_again(db: Database, dataset_id: str, entry: SubmitContext) -> bool:
    """Queue another preparation of a dataset that has none, or whose last one failed or was cancelled.

    Returns whether a job was queued; False: one is under way.

    Raises:
        NotFound: there is no such dataset of this project.
        Conflict: it is ready or refused, bytes are missing, or they are gone.
        QuotaExceeded, StorageFull: see `submit_prepare`.
    """
    with db.write() as connection:
        row = lock_row(connection, entry.project, dataset_id)
        if row.status in {"ready", "refused"}:
            message = f"The dataset is {row.status}, and another preparation has the same end."
            raise Conflict(message, extra={"current_status": row.status})
        state = None if row.job_id is None else lock_state(connection, row.job_id)
        if row.status == "queued" and state is not None and state.status not in TERMINAL:
            return False
        if row.status == "uploading" and (row.bytes is None or row.received < row.bytes):
            raise Conflict("The upload has not ended yet.", extra={"current_status": row.status})
        if row.status != "uploading":
            require_pieces(connection, row)
        submit_prepare(connection, row, entry)
        return True


def cancel_preparation(db: Database, project: str, dataset_id: str) -> None:
    """Let the preparation end. Doing it twice is the same.

    Raises:
        NotFound: there is no such dataset of this project.
        Conflict: no preparation is under way; `extra` holds the current_status.
    """
    with db.write() as connection:
        row = lock_row(connection, project, dataset_id)
        state = None if row.job_id is None else lock_state(connection, row.job_id)
        open_or_cancelled = state is not None and (state.status not in TERMINAL or state.status is Status.CANCELLED)
        if row.status not in {"queued", "cancelled"} or not open_or_cancelled:
            message = f"No preparation is under way: the dataset is {row.status}."
            raise Conflict(message, extra={"current_status": row.status})
        cancel_open_job(connection, row.job_id or "")


def require_pieces(connection: Connection, row: DatasetRow) -> None:
    """Raise Conflict unless everything that a preparation needs is there: all bytes, or where they are."""
    if row.status == "uploading":
        raise Conflict("The upload has not ended yet.", extra={"current_status": row.status})
    if row.source is not None:
        return
    first = select(upload_piece.c.offset).where(upload_piece.c.dataset_id == row.id).limit(1)
    if connection.execute(first).first() is None:
        message = "The uploaded bytes of this dataset are gone: they are kept for a day. Upload them again."
        raise Conflict(message, extra={"current_status": row.status})
