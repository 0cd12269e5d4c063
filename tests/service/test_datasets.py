"""What lies beneath the uploads: quotas, jobs that use a dataset, expiry, and what is removed when."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from core.db.session import Database
from core.db.tables import dataset, dataset_version, job, job_dataset, job_state, upload_piece
from core.errors import Conflict, InvalidSpec, NotFound, QuotaExceeded, StorageFull, Unavailable
from core.jobs.datasets.create import NewDataset, correct_dataset, create_dataset
from core.jobs.datasets.pieces import OffsetMismatch, complete_upload, find_upload, record_pieces, store_piece
from core.jobs.datasets.prepare import claim_version, mark_ready
from core.jobs.datasets.removal import DatasetChores, delete_dataset
from core.jobs.datasets.use import DataGone, find_dataset_manifest, record_use
from core.jobs.datasets.views import get_dataset_view
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.queue.submit import SubmitContext
from core.settings import Limits, Settings
from core.store.local import LocalStore
from tests.support.jobs import set_state, submitted
from tests.support.uploads import CSV, begin_preparation, digest, manifest_of, prepare, stored_content

DAY = 86_400.0


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def chores(db: Database, store: LocalStore) -> DatasetChores:
    return DatasetChores(db, store, batch=100)


def entry_of(project: str = "alice", **limits: int) -> SubmitContext:
    return SubmitContext(project, Limits(**limits), 60.0)


def announced(db: Database, entry: SubmitContext | None = None, **changes: Any) -> str:
    new = NewDataset(**{"name": "penguins", "bytes": len(CSV)} | changes)
    return create_dataset(db, new, entry or entry_of(), keep_seconds=DAY).dataset_id


def appended(db: Database, store: LocalStore, dataset_id: str, content: bytes, project: str = "alice") -> int:
    piece = store_piece(store, dataset_id, find_upload(db, project, dataset_id).received, content)
    limits = {"limits": Limits(), "most_bytes": 1 << 40, "keep_seconds": DAY}
    return record_pieces(db, project, dataset_id, [piece], **limits)


def uploaded(db: Database, store: LocalStore, project: str = "alice", **changes: Any) -> str:
    entry = entry_of(project)
    dataset_id = announced(db, entry, **changes)
    appended(db, store, dataset_id, CSV, project)
    assert complete_upload(db, dataset_id, entry) is not None
    return dataset_id


def ready(db: Database, store: LocalStore, project: str = "alice", **changes: Any) -> str:
    dataset_id = uploaded(db, store, project, **changes)
    prepare(db, store, dataset_id)
    return dataset_id


def keys(store: LocalStore, prefix: str) -> list[str]:
    return [stored.key for stored in store.list(prefix)]


def aged(db: Database, dataset_id: str) -> None:
    """Let its time be over."""
    with db.write() as connection:
        connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(expires_at=1.0))


def ids(db: Database) -> set[str]:
    with db.read() as connection:
        return set(connection.execute(select(dataset.c.id)).scalars())


def test_one_of_many_writers_at_an_offset_is_recorded(db: Database, store: LocalStore) -> None:
    dataset_id = announced(db, bytes=100)

    def write(number: int) -> bool:
        piece = store_piece(store, dataset_id, 0, bytes([number]) * 10)
        try:
            record_pieces(db, "alice", dataset_id, [piece], limits=Limits(), most_bytes=1000, keep_seconds=DAY)
        except OffsetMismatch as error:
            return error.offset != 10
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert stored_content(db, store, dataset_id) == bytes([won.index(True)]) * 10


def test_other_projects_see_nothing_of_each_other(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    """Two projects with the same bytes: both send all of them, one copy is kept, and it goes with the last row."""
    mine = ready(db, store)
    theirs = announced(db, entry_of("bob"), sha256=digest(CSV))
    assert find_upload(db, "bob", theirs).status == "uploading"
    for attempt in (
        lambda: find_upload(db, "bob", mine),
        lambda: get_dataset_view(db, "bob", mine),
        lambda: delete_dataset(db, "bob", mine),
        lambda: correct_dataset(db, mine, entry_of("bob"), wanted=None, options={}),
        lambda: appended(db, store, mine, b"x", "bob"),
    ):
        with pytest.raises(NotFound):
            attempt()
    with pytest.raises(InvalidSpec):
        find_dataset_manifest(db, "bob", mine)
    appended(db, store, theirs, CSV, "bob")
    complete_upload(db, theirs, entry_of("bob"))
    version = prepare(db, store, theirs).version()
    assert get_dataset_view(db, "alice", mine).version == get_dataset_view(db, "bob", theirs).version == version
    shards = keys(store, "datasets/")
    assert len(shards) == 2
    delete_dataset(db, "alice", mine)
    chores.run()
    assert (ids(db), keys(store, "datasets/")) == ({theirs}, shards)
    delete_dataset(db, "bob", theirs)
    chores.run()
    assert (ids(db), keys(store, "datasets/"), keys(store, "uploads/")) == (set(), [], [])


def test_quotas_count_every_dataset_whole(db: Database, store: LocalStore) -> None:
    few = entry_of(datasets=2, dataset_bytes=100)
    announced(db, few, bytes=60)
    with pytest.raises(StorageFull) as full:
        announced(db, few, bytes=41)
    assert full.value.extra == {"limit": "dataset_bytes", "allowed": 100, "used": 60}
    announced(db, few, bytes=40)
    with pytest.raises(QuotaExceeded) as many:
        announced(db, few, bytes=1)
    assert many.value.extra == {"limit": "datasets", "allowed": 2, "used": 2}
    announced(db, entry_of("bob", datasets=1, dataset_bytes=100), bytes=100)


def test_an_upload_of_unknown_length_is_counted_as_it_grows(db: Database, store: LocalStore) -> None:
    dataset_id = announced(db, bytes=None)
    limits = {"limits": Limits(dataset_bytes=15), "most_bytes": 1000, "keep_seconds": DAY}
    record_pieces(db, "alice", dataset_id, [store_piece(store, dataset_id, 0, bytes(10))], **limits)
    with pytest.raises(StorageFull):
        record_pieces(db, "alice", dataset_id, [store_piece(store, dataset_id, 10, bytes(6))], **limits)


def test_a_dataset_stays_while_a_job_needs_it(db: Database, store: LocalStore) -> None:
    dataset_id, job_id = ready(db, store), submitted(db)
    with db.write() as connection:
        record_use(connection, "alice", job_id, [dataset_id])
    assert get_dataset_view(db, "alice", dataset_id).used_by == 1
    with pytest.raises(Conflict) as needed:
        delete_dataset(db, "alice", dataset_id)
    assert needed.value.extra["needed_by"] == [job_id]
    assert f"need this dataset: {job_id}. Cancel them" in needed.value.message
    set_state(db, job_id, status="succeeded")
    delete_dataset(db, "alice", dataset_id)
    with pytest.raises(DataGone), db.write() as connection:
        record_use(connection, "alice", submitted_id(connection), [dataset_id])


def submitted_id(connection: Any) -> str:
    found: str = connection.execute(select(job.c.id).limit(1)).scalar_one()
    return found


def test_a_job_cannot_use_what_is_not_ready_or_not_its_own(db: Database, store: LocalStore) -> None:
    theirs, queued, job_id = ready(db, store, "bob"), uploaded(db, store), submitted(db)
    for dataset_id in (queued, theirs):
        with pytest.raises(DataGone), db.write() as connection:
            record_use(connection, "alice", job_id, [dataset_id])
    with pytest.raises(InvalidSpec) as waits:
        find_dataset_manifest(db, "alice", queued)
    assert waits.value.errors[0].message == "it is not ready: its status is queued"


def test_an_upload_that_does_not_go_on_expires(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    late, alive = announced(db), announced(db)
    for dataset_id in (late, alive):
        appended(db, store, dataset_id, CSV[:5])
    chores.run()
    assert ids(db) == {late, alive}
    aged(db, late)
    chores.run()
    assert ids(db) == {alive}
    assert [key.split("/")[1] for key in keys(store, "uploads/")] == [alive]


def test_pieces_go_a_day_after_the_preparation(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    """Unless a correction shares them: then they go with the last dataset that names them."""
    first = ready(db, store)
    second = correct_dataset(db, first, entry_of(), wanted="csv", options={})
    assert stored_content(db, store, second) == CSV
    aged(db, first)
    chores.run()
    with pytest.raises(Conflict, match="kept for a day"):
        correct_dataset(db, first, entry_of(), wanted="tsv", options={})
    assert stored_content(db, store, second) == CSV
    prepare(db, store, second)
    aged(db, second)
    chores.run()
    assert keys(store, "uploads/") == []
    assert get_dataset_view(db, "alice", second).status == "ready"


def test_a_lost_preparation_has_the_status_of_its_job(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    lost, cancelled = uploaded(db, store), uploaded(db, store)
    for dataset_id, status in ((lost, "failed"), (cancelled, "cancelled")):
        job_id = get_dataset_view(db, "alice", dataset_id).job_id
        assert job_id is not None
        set_state(db, job_id, status=status)
        with db.write() as connection:
            mine = update(job).where(job.c.id == job_id)
            connection.execute(mine.values(error={"code": "worker_lost", "message": "m", "remedy": None}))
    seen = [get_dataset_view(db, "alice", dataset_id).status for dataset_id in (lost, cancelled)]
    chores.run()
    assert seen == [get_dataset_view(db, "alice", each).status for each in (lost, cancelled)] == ["failed", "cancelled"]
    assert (get_dataset_view(db, "alice", lost).error or {})["code"] == "worker_lost"
    with db.read() as connection:
        rows = connection.execute(select(dataset.c.status, dataset.c.expires_at).order_by(dataset.c.id)).all()
    assert [row.status for row in rows] == ["failed", "cancelled"]
    assert all(row.expires_at > time.time() for row in rows)


def test_deleting_while_it_is_prepared_ends_the_preparation(
    db: Database, store: LocalStore, chores: DatasetChores
) -> None:
    dataset_id = uploaded(db, store)
    fence = begin_preparation(db, dataset_id)
    delete_dataset(db, "alice", dataset_id)
    with db.write() as connection:
        desired = connection.execute(select(job_state.c.desired).where(job_state.c.job_id == fence.job_id)).scalar_one()
        assert desired == "cancel"
        assert not mark_ready(connection, dataset_id, manifest_of(CSV), 17, {})
    chores.run()
    assert ids(db) == {dataset_id}, "its job still runs"
    set_state(db, fence.job_id, status="cancelled")
    chores.run()
    assert ids(db) == set()
    settings = Settings(home=store._root.parent)
    GarbageCollector(db, store, settings).delete_removed_jobs()
    chores.run()
    with db.read() as connection:
        for table in (job, dataset, dataset_version, upload_piece, job_dataset):
            assert connection.execute(select(table)).all() == []
    assert keys(store, "") == []


def test_objects_that_no_row_names_are_swept(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    kept = ready(db, store)
    store_piece(store, kept, 0, b"a writer that lost")
    store.put_bytes(b"x", f"datasets/{'0' * 64}/0.safetensors")
    held = [key for key in keys(store, "") if "-" not in key or "0" * 64 in key]
    assert len(held) == 3
    chores.sweep_orphans(3600.0)
    chores.run()
    assert len(keys(store, "")) == 5, "they are too young: their writer may be about to write the row"
    for path in store._root.rglob("*"):
        os.utime(path, (1.0, 1.0))
    chores.sweep_orphans(3600.0)
    chores.run()
    assert [key for key in keys(store, "datasets/") if "0" * 64 in key] == []
    assert stored_content(db, store, kept) == CSV
    assert len(keys(store, "")) == 3


def test_a_version_that_goes_cannot_be_begun(db: Database, store: LocalStore, chores: DatasetChores) -> None:
    """A preparation of the same bytes, begun while the objects are removed, waits until they are."""
    first = ready(db, store)
    version = get_dataset_view(db, "alice", first).version or ""
    second = uploaded(db, store, "bob")
    delete_dataset(db, "alice", first)
    chores.remove_deleted()
    chores.doom_unused_versions()
    with pytest.raises(Unavailable), db.write() as connection:
        claim_version(connection, second, version)
    chores.remove_doomed_versions()
    assert prepare(db, store, second).version() == version
    chores.run()
    assert len(keys(store, "datasets/")) == 2


def test_deleting_and_submitting_at_once(db: Database, store: LocalStore) -> None:
    """One of the two sees the other, whichever is first."""
    for _ in range(5):
        dataset_id, job_id = ready(db, store), submitted(db)

        def use(dataset_id: str = dataset_id, job_id: str = job_id) -> str:
            try:
                with db.write() as connection:
                    record_use(connection, "alice", job_id, [dataset_id])
            except DataGone:
                return "gone"
            return "used"

        def remove(dataset_id: str = dataset_id) -> str:
            try:
                delete_dataset(db, "alice", dataset_id)
            except Conflict:
                return "needed"
            return "deleted"

        with ThreadPoolExecutor(2) as pool:
            used, removed = pool.submit(use), pool.submit(remove)
        assert (used.result(), removed.result()) in {("used", "needed"), ("gone", "deleted")}


def test_a_row_of_the_first_shape_is_refused(db: Database) -> None:
    row = {"id": "ds_x", "project": "p", "owner": "o", "name": "n", "status": "gone", "format": "auto", "options": {}}
    with pytest.raises(Exception, match=r"(?i)check constraint"), db.write() as connection:
        connection.execute(insert(dataset).values(**row, received=0, created_at=1.0))
