"""Uploads as tests make them, and the end of a preparation as a worker writes it."""

import hashlib
from typing import Any

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.datasets.prepare import claim_version, mark_failed, mark_ready, mark_refused
from core.jobs.datasets.rows import list_pieces
from core.lifecycle import Status
from core.recipe.data.manifest import ColumnFacts, DatasetManifest, ShardFile, TensorShape
from core.store.base import Store
from core.store.keys import dataset_key
from tests.support.jobs import taken

CSV = b"species,bill\nAdelie,39.1\nGentoo,47.5\n"
SHARD = b"numbers and codes"


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def manifest_of(content: bytes, rows: int = 2) -> DatasetManifest:
    """What a preparation of CSV could have found; half of the rows are of each species."""
    return DatasetManifest(
        kind="table",
        format="csv",
        examples=rows,
        shards=(ShardFile(name="0.safetensors", rows=rows, bytes=len(SHARD), sha256=digest(SHARD)),),
        tensors={
            "numbers": TensorShape(dtype="F32", shape=(rows, 1)),
            "codes": TensorShape(dtype="I32", shape=(rows, 1)),
        },
        columns=(
            ColumnFacts(
                name="species", kind="category", code=0, categories=("Adelie", "Gentoo"), counts=(rows // 2, rows // 2)
            ),
            ColumnFacts(name="bill", kind="number", numbers=(0,), minimum=39.1, maximum=47.5, mean=43.3, missing=0),
        ),
        preview=({"species": "Adelie", "bill": 39.1}, {"species": "Gentoo", "bill": 47.5}),
        source_bytes=len(content),
        source_sha256=digest(content),
    )


def stored_content(db: Database, store: Store, dataset_id: str) -> bytes:
    """The bytes of an upload, from the objects that its rows name."""
    with db.read() as connection:
        pieces = list_pieces(connection, dataset_id)
    found = b"".join(b"".join(store.open_range(piece.key)) for piece in pieces)
    assert [piece.offset for piece in pieces] == [sum(p.bytes for p in pieces[:n]) for n in range(len(pieces))]
    return found


def begin_preparation(db: Database, dataset_id: str) -> Fence:
    """Claim the job as the light lane of a worker does."""
    claim = taken(db, needs=("light",))
    assert claim is not None
    spec: Any = claim.spec
    assert spec.dataset == dataset_id
    return Fence(claim.job_id, claim.attempt)


def prepare(db: Database, store: Store, dataset_id: str, rows: int = 2) -> DatasetManifest:
    """Prepare the dataset as a worker does: shards, manifest, row."""
    fence = begin_preparation(db, dataset_id)
    manifest = manifest_of(stored_content(db, store, dataset_id), rows)
    with db.write() as connection:
        claim_version(connection, dataset_id, manifest.version())
    store.put_bytes(SHARD, dataset_key(manifest.version(), "0.safetensors"))
    store.put_bytes(manifest.canonical_json(), dataset_key(manifest.version(), "manifest.json"))
    with db.write() as connection:
        assert mark_ready(connection, dataset_id, manifest, manifest.stored_bytes(), {"landlock": 7})
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    return manifest


def refuse(db: Database, dataset_id: str, errors: list[dict[str, Any]]) -> None:
    fence = begin_preparation(db, dataset_id)
    with db.write() as connection:
        assert mark_refused(connection, dataset_id, errors)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))


def fail(db: Database, dataset_id: str) -> None:
    fence = begin_preparation(db, dataset_id)
    error = {"code": "engine_error", "message": "the preparation process ended", "remedy": "try again"}
    with db.write() as connection:
        assert mark_failed(connection, dataset_id, error)
    finish_job(db, fence, TerminalState(Status.FAILED, None, error=error))
