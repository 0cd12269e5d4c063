"""The chores: what nobody needs is removed, and nothing else."""

import os
import time
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.db.session import Database, database_now
from core.db.tables import checkpoint, idempotency
from core.jobs.checkpoints.records import list_checkpoint_rows, record_checkpoint
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.queue.submit import Idempotency, create_job
from core.settings import Settings
from core.store.base import StoreTransient
from core.store.local import LocalStore
from tests.support.jobs import OWNER, last_tick, new_checkpoint, running, small_spec

DAY = 86400.0


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def care(db: Database, store: LocalStore, tmp_path: Path) -> GarbageCollector:
    return GarbageCollector(db, store, Settings(home=tmp_path))


def put(store: LocalStore, tmp_path: Path, key: str, age: float = 0.0) -> str:
    source = tmp_path / "source"
    source.write_bytes(b"tensors")
    store.put_file(source, key)
    moment = time.time() - age
    os.utime(tmp_path / "store" / key, (moment, moment))
    return key


def keys(store: LocalStore) -> list[str]:
    return [stored.key for stored in store.list("jobs/")]


def test_doomed_checkpoints_lose_their_objects_and_their_rows(
    db: Database,
    store: LocalStore,
    care: GarbageCollector,
    tmp_path: Path,
) -> None:
    fence = running(db)
    rows = []
    for step in (5, 10, 15):
        new = new_checkpoint(fence, step)
        for name in ("weights.safetensors", "manifest.json"):
            put(store, tmp_path, f"{new.key}/{name}")
        rows.append(record_checkpoint(db, fence, new, [], resumable=True))
    assert care.delete_pending_checkpoints() == 1
    assert {key.rpartition("/")[0] for key in keys(store)} == {rows[1].key, rows[2].key}
    with db.read() as connection:
        assert connection.execute(select(func.count()).select_from(checkpoint)).scalar_one() == 2
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == rows[1:]
    assert care.delete_pending_checkpoints() == 0


def test_idempotency_keys_live_a_day(db: Database, care: GarbageCollector) -> None:
    for key, age in (("old", DAY + 60.0), ("young", DAY - 60.0)):
        create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency(key, "digest"))
        with db.write() as connection:
            moved = update(idempotency).where(idempotency.c.key == key).values(created_at=database_now() - age)
            connection.execute(moved)
    assert care.expire_idempotency_keys() == 1
    assert not create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency("young", "digest")).created
    assert create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency("old", "digest")).created


def test_orphans_go_after_a_day_and_what_has_a_row_stays(
    db: Database,
    store: LocalStore,
    care: GarbageCollector,
    tmp_path: Path,
) -> None:
    fence = running(db)
    new = new_checkpoint(fence, 5)
    owned = put(store, tmp_path, f"{new.key}/weights.safetensors", age=3 * DAY)
    record_checkpoint(db, fence, new, [], resumable=True)
    put(store, tmp_path, f"jobs/{fence.job_id}/1-9-aa/weights.safetensors", age=DAY + 60.0)
    put(store, tmp_path, f"jobs/{fence.job_id}/1-9-aa/manifest.json", age=DAY + 60.0)
    fresh = put(store, tmp_path, f"jobs/{fence.job_id}/1-9-bb/weights.safetensors", age=60.0)
    assert care.delete_orphan_objects() == 2
    assert keys(store) == sorted([owned, fresh])


def test_chores_are_done_once_in_their_time(
    db: Database, care: GarbageCollector, tmp_path: Path, store: LocalStore
) -> None:
    orphan = put(store, tmp_path, "jobs/job_x/1-1-aa/weights.safetensors", age=2 * DAY)
    care.run_due_chores()
    assert keys(store) == []
    put(store, tmp_path, orphan, age=2 * DAY)
    care.run_due_chores()
    assert keys(store) == [orphan]
    last_tick(db, 3601.0, "sweep")
    care.run_due_chores()
    assert keys(store) == []


def test_one_round_removes_all_that_is_doomed_not_one_batch(db: Database, store: LocalStore, tmp_path: Path) -> None:
    """Jobs can doom more checkpoints in a minute than one batch holds."""
    care = GarbageCollector(db, store, Settings(home=tmp_path), batch=1)
    fence = running(db)
    for step in (5, 10, 15, 20, 25):
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
    with db.read() as connection:
        doomed = select(func.count()).where(checkpoint.c.status == "doomed")
        assert connection.execute(doomed).scalar_one() == 3
        care.run_due_chores()
        assert connection.execute(doomed).scalar_one() == 0


def test_a_store_that_is_away_is_asked_once_in_a_turn(
    db: Database, store: LocalStore, care: GarbageCollector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answers may take seconds, and leases must not wait for them in every round."""
    asked = []

    def away(prefix: str) -> None:
        asked.append(prefix)
        raise StoreTransient

    care.run_due_chores()
    fence = running(db)
    for step in (5, 10, 15):
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
    monkeypatch.setattr(store, "list", away)
    for turn in (1, 2):
        last_tick(db, 61.0, "care")
        with pytest.raises(StoreTransient):
            care.run_due_chores()
        care.run_due_chores()
        assert len(asked) == turn
