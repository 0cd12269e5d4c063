"""Uploads written by the domain's functions, without an api; and npz files, whose prepared form is known."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from core.db.session import Database
from core.jobs.datasets.create import NewDataset, create_dataset
from core.jobs.datasets.pieces import complete_upload, record_pieces, store_piece
from core.jobs.datasets.views import DatasetView, get_dataset_view
from core.jobs.queue.submit import SubmitContext
from core.settings import Limits, Settings
from core.store.base import Store
from tests.support.jobs import OWNER
from worker import provision
from worker.attempt import Slot, WorkerContext
from worker.launcher import ExecLauncher

ENTRY = SubmitContext(OWNER, Limits(), 60.0)
LANE = Slot(1, "light", "")


TIMINGS = {"lease_seconds": 4.0, "beat_seconds": 0.3, "cancel_grace_seconds": 2.0, "outage_seconds": 600.0}


@contextmanager
def make_context(db: Database, store: Store, home: Path, name: str = "w", **settings: Any) -> Iterator[WorkerContext]:
    """A worker whose supervisors a test calls itself."""
    scratch = provision.Scratch(home / "scratch", name)
    scratch.open()
    try:
        found = Settings.model_validate(TIMINGS | {"home": home} | settings)
        yield WorkerContext(name, found, db, store, ExecLauncher(), scratch, threading.Event())
    finally:
        scratch.close()


def npz_bytes(rows: int = 1000, width: int = 4, seed: int = 0) -> bytes:
    """Random inputs and three classes."""
    random, buffer = np.random.default_rng(seed), io.BytesIO()
    np.savez(
        buffer, inputs=random.normal(size=(rows, width)).astype(np.float32), targets=np.arange(rows, dtype=np.int64) % 3
    )
    return buffer.getvalue()


def upload(db: Database, store: Store, content: bytes, piece: int = 10_000, **fields: Any) -> tuple[str, str]:
    """An upload in pieces, complete and queued; the ids of its dataset and of its job."""
    new = NewDataset(fields.pop("name", "mine"), filename="a.npz", bytes=len(content), **fields)
    dataset_id = create_dataset(db, new, ENTRY, keep_seconds=3600.0).dataset_id
    for offset in range(0, len(content), piece):
        stored = store_piece(store, dataset_id, offset, content[offset : offset + piece])
        limits: dict[str, Any] = {"limits": Limits(), "most_bytes": 1 << 40, "keep_seconds": 3600.0}
        record_pieces(db, ENTRY.project, dataset_id, [stored], **limits)
    job_id = complete_upload(db, dataset_id, ENTRY)
    assert job_id is not None
    return dataset_id, job_id


def dataset(db: Database, dataset_id: str) -> DatasetView:
    return get_dataset_view(db, ENTRY.project, dataset_id)


def stored_files(store: Store, version: str) -> dict[str, int]:
    """Name -> bytes of what the store has of a version."""
    return {Path(each.key).name: each.bytes for each in store.list(f"datasets/{version}/")}
