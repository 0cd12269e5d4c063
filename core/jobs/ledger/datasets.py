"""The objects of datasets: every shard of a ready one, and every piece of an upload that is not prepared yet."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Row, select

from core.db.session import Database
from core.db.tables import dataset, upload_piece
from core.jobs.ledger.finding import Finding
from core.jobs.ledger.objects import object_problem
from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from core.store.base import Digest, Store, StoreMissing, StoreUnreadable
from core.store.keys import DATASETS, UPLOADS, dataset_key

NEED_PIECES: Final = ("uploading", "queued")


def dataset_findings(db: Database, store: Store, rows: int, *, digests: bool) -> Iterator[Finding | int]:
    """Every inconsistency, and after each dataset how many objects were looked at. `rows` are read at once."""
    after = ""
    while True:
        found = _read_page(db, after, rows)
        for row in found:
            yield from _check_dataset(db, store, row, digests=digests)
        if len(found) < rows:
            return
        after = found[-1].id


def _read_page(db: Database, after: str, rows: int) -> Sequence[Any]:
    row = dataset.c
    query = select(row.id, row.status, row.version, row.job_id).where(row.id > after, row.project != "")
    with db.read() as connection:
        return connection.execute(query.order_by(row.id).limit(rows)).all()


def _check_dataset(db: Database, store: Store, row: Row[Any], *, digests: bool) -> Iterator[Finding | int]:
    if row.status == "ready":
        wanted, problems = _shards_wanted(store, row.version)
    elif row.status in NEED_PIECES:
        wanted, problems = _pieces_wanted(db, row.id), []
    else:
        return
    prefix = f"{DATASETS}{row.version}/" if row.status == "ready" else f"{UPLOADS}{row.id}/"
    listed = {stored.key: stored.bytes for stored in store.list(prefix)}
    for key, digest in wanted.items():
        if listed.get(key) == digest.bytes and not digests:
            continue
        if problem := object_problem(store, key, digest, digests=digests and bool(digest.sha256)):
            problems.append((key, problem))
    if problems and _is_unchanged(db, row):
        yield from (Finding("dataset", row.job_id or "", key, f"of {row.id}: {each}") for key, each in problems)
    yield len(wanted)


def _shards_wanted(store: Store, version: str) -> tuple[dict[str, Digest], list[tuple[str, str]]]:
    """(object key -> what its shard must be, what is wrong with the manifest, whose digest is the version)"""
    key = dataset_key(version, MANIFEST_FILE)
    try:
        content = b"".join(store.open_range(key))
    except StoreMissing:
        return {}, [(key, "it is missing")]
    except StoreUnreadable:
        return {}, [(key, "it cannot be read")]
    found = hashlib.sha256(content).hexdigest()
    if found != version:
        return {}, [(key, f"its SHA-256 is {found} instead of {version}")]
    manifest = DatasetManifest.model_validate_json(content)
    return {dataset_key(version, each.name): Digest(each.sha256, each.bytes) for each in manifest.shards}, []


def _pieces_wanted(db: Database, dataset_id: str) -> dict[str, Digest]:
    row = upload_piece.c
    query = select(row.key, row.sha256, row.bytes).where(row.dataset_id == dataset_id)
    with db.read() as connection:
        return {key: Digest(sha256 or "", size) for key, sha256, size in connection.execute(query)}


def _is_unchanged(db: Database, before: Row[Any]) -> bool:
    """Whether the dataset is still what it was when it was read: it may have been deleted or prepared meanwhile."""
    row = dataset.c
    query = select(row.status, row.version, row.project).where(row.id == before.id)
    with db.read() as connection:
        now = connection.execute(query).one_or_none()
    return now is not None and (now.status, now.version) == (before.status, before.version) and now.project != ""
