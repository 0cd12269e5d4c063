"""The job that prepares a dataset: how it is made, and what the worker writes in its fenced transactions.

The worker first calls `claim_version`, puts the shards and then manifest.json into the store, and calls `mark_ready` in
the transaction that ends the job. A dataset whose job ends without one of the `mark_…` functions has the status of its
job (core/jobs/datasets/views.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, select, update

from core.db.session import database_now
from core.db.tables import dataset, dataset_version
from core.db.upsert import insert_if_absent
from core.errors import Unavailable
from core.ids import new_id
from core.jobs.datasets.rows import DatasetRow
from core.jobs.kinds import PREPARE
from core.jobs.queue.submit import SubmitContext, insert_job
from core.recipe.data.manifest import DatasetManifest
from core.recipe.prepare import PrepareSpec
from core.recipe.stored import read_stored

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
    spec = read_stored(PrepareSpec, {**document, "name": row.name})
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
        "manifest": manifest.model_copy(update={"shards": ()}).canonical_json().decode(),
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
