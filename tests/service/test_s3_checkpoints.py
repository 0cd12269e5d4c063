"""Checkpoints in an S3 store that fails: each is there once with its row, or not at all, and the job goes on."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence
from core.jobs.checkpoints.records import CheckpointRow, list_checkpoint_rows
from core.jobs.garbage_collection import GarbageCollector
from core.settings import Settings
from core.store.base import StoreRefused
from core.store.location import StoreLocation
from core.store.s3 import S3Store
from core.store.s3_client import S3Tuning
from tests.service.conftest import TIMINGS
from tests.service.test_recorder import checkpoint, warnings
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, running
from tests.support.proxy import Proxy, answer
from worker import wire
from worker.backlog import Backlog
from worker.heartbeat import Heartbeat
from worker.provision import BadCheckpoint, fetch_checkpoint
from worker.recorder import Recorder

pytestmark = POSTGRESQL_IS_SLOW

Pair = tuple[Proxy, S3Store]


@pytest.fixture
def fence(db: Database) -> Fence:
    return running(db, checkpoints={"every": "1st", "keep_last": 9})


@pytest.fixture
def heart(db: Database, fence: Fence) -> Iterator[Heartbeat]:
    heart = Heartbeat(db, fence, Settings.model_validate(TIMINGS), threading.Event(), time.monotonic())
    heart.start()
    yield heart
    heart.stop()


def record(heart: Heartbeat, store: S3Store, folder: Path, *steps: int) -> Recorder:
    """What a runner leaves behind at these steps, recorded to the end."""
    backlog = Backlog(folder / "spill")
    recorder = Recorder(heart, store, backlog, None, folder)
    for step in steps:
        backlog.put(checkpoint(folder, step))
    recorder.start()
    recorder.close()
    return recorder


def rows(db: Database, fence: Fence) -> list[CheckpointRow]:
    return list_checkpoint_rows(db, OWNER, fence.job_id)


def named(found: list[CheckpointRow]) -> list[str]:
    """The objects that these rows name."""
    return sorted(f"{row.key}/{file['name']}" for row in found for file in row.files.values())


def keys(store: S3Store) -> list[str]:
    return [stored.key for stored in store.list("")]


def test_every_checkpoint_once_although_three_requests_of_ten_fail(
    db: Database, fence: Fence, heart: Heartbeat, proxy_and_store: Pair, tmp_path: Path
) -> None:
    """F29: refusals, resets, lost and broken answers. No row without its objects, no object without its row."""
    proxy, store = proxy_and_store
    proxy.at_random(0.3, seed=11)
    recorder = record(heart, store, tmp_path, 1, 2, 3, 4)
    proxy.calm()
    assert (recorder.failure, recorder.missing, warnings(db, fence)) == (None, set(), [])
    assert [row.step for row in rows(db, fence)] == [1, 2, 3, 4]
    assert keys(store) == named(rows(db, fence))
    assert any(one.choice for one in proxy.passed)
    for row in rows(db, fence):
        for file in row.files.values():
            assert store.fetch(f"{row.key}/{file['name']}", tmp_path / "back").sha256 == file["sha256"]


def test_stored_but_never_told(
    db: Database, fence: Fence, heart: Heartbeat, proxy_and_store: Pair, tmp_path: Path
) -> None:
    """F30: every answer to an upload is lost. One row, and one object for each file."""
    proxy, store = proxy_and_store
    proxy.choose = lambda method, target: "lose" if method == "PUT" and "jobs/" in target else None
    recorder = record(heart, store, tmp_path, 7)
    assert (recorder.failure, recorder.missing) == (None, set())
    (row,) = rows(db, fence)
    assert keys(store) == named([row])


def test_a_store_that_refuses_costs_a_checkpoint_and_nothing_else(
    db: Database, fence: Fence, heart: Heartbeat, proxy_and_store: Pair, tmp_path: Path
) -> None:
    proxy, store = proxy_and_store
    proxy.choose = lambda _method, _target: answer(403)
    assert record(heart, store, tmp_path / "a", 1).missing == {"last"}
    assert warnings(db, fence) == ["checkpoint_failed"]
    proxy.calm()
    assert record(heart, store, tmp_path / "b", 2).missing == set()
    assert [row.step for row in rows(db, fence)] == [2]


def test_what_is_loaded_is_what_was_recorded(
    db: Database, fence: Fence, heart: Heartbeat, proxy_and_store: Pair, tmp_path: Path
) -> None:
    """A flipped bit or a missing file makes a checkpoint bad; a store that refuses or is away says nothing about it."""
    proxy, store = proxy_and_store
    record(heart, store, tmp_path, 1)
    (row,) = rows(db, fence)
    proxy.edit_answer = lambda _target, message: message.replace(b"weights of step 1", b"weights of step 3")
    with pytest.raises(BadCheckpoint, match="does not match its recorded digest"):
        fetch_checkpoint(store, row, tmp_path / "resume")
    proxy.choose = lambda _method, _target: answer(404, "<Error><Code>NoSuchBucket</Code></Error>")
    with pytest.raises(StoreRefused):
        fetch_checkpoint(store, row, tmp_path / "resume")
    proxy.calm()
    store.delete(f"{row.key}/weights.safetensors")
    with pytest.raises(BadCheckpoint, match="missing"):
        fetch_checkpoint(store, row, tmp_path / "resume")


def test_orphans_and_half_uploads_are_swept_and_what_has_a_row_stays(
    db: Database, heart: Heartbeat, bucket: StoreLocation, proxy_and_store: Pair, tmp_path: Path
) -> None:
    proxy, store = proxy_and_store
    in_parts = S3Store(replace(bucket, endpoint=proxy.url), S3Tuning(whole_bytes=1))
    record(heart, store, tmp_path, 1)
    kept = keys(store)
    (tmp_path / "orphan").write_bytes(b"of an attempt that died before its row")
    store.put_file(tmp_path / "orphan", f"jobs/{heart.fence.job_id}/1-2-aa/weights.safetensors")
    proxy.once("lose", "POST", "uploads")  # begun twice, heard of once
    in_parts.put_file(tmp_path / "orphan", f"jobs/{heart.fence.job_id}/1-3-aa/weights.safetensors")
    care = GarbageCollector(db, store, Settings.model_validate({"home": tmp_path, "orphan_seconds": 0.001}))
    time.sleep(1.1)  # S3 tells times in whole seconds
    assert care.delete_orphan_objects() == 2
    assert keys(store) == kept
    assert store.remove_unfinished(0.0) == 0
    aborted: list[Any] = proxy.met("DELETE", "uploadId")
    assert aborted == [None]


def test_a_manifest_comes_back_as_it_was(
    db: Database, fence: Fence, heart: Heartbeat, proxy_and_store: Pair, tmp_path: Path
) -> None:
    """Through 30 % of failures in both directions, as a resume after a lost worker sees it."""
    proxy, store = proxy_and_store
    proxy.at_random(0.3, seed=5)
    backlog, recorder = engine_checkpoint(heart, store, tmp_path)
    recorder.start()
    backlog.close()
    recorder.close()
    (row,) = rows(db, fence)
    resume = heart.retry_write(lambda: fetch_checkpoint(store, row, tmp_path / "resume"))
    assert resume.manifest == {"step": 4, "digest": "ff"}
    assert [resume.weights.read_bytes(), resume.state.read_bytes()] == [b"w" * 999, b"s" * 99]


def engine_checkpoint(heart: Heartbeat, store: S3Store, folder: Path) -> tuple[Backlog, Recorder]:
    """A checkpoint with all three files, waiting to be recorded."""
    contents = {
        "weights": ("weights.safetensors", b"w" * 999),
        "state": ("state.safetensors", b"s" * 99),
        "manifest": ("manifest.json", json.dumps({"step": 4, "digest": "ff"}).encode()),
    }
    out = folder / "out"
    out.mkdir()
    files = {}
    for role, (name, content) in contents.items():
        (out / name).write_bytes(content)
        files[role] = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    fields = {"kind": "last", "step": 4, "epoch": 1, "folder": str(out), "files": files, "metrics": {}}
    backlog = Backlog(folder / "spill")
    backlog.put(wire.pack_frame("checkpoint", "j", {**fields, "manifest": {}, "resumable": True})[4:])
    return backlog, Recorder(heart, store, backlog, None, folder)
