"""Which store belongs to a database: made once, whoever is killed, and never mistaken for another one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from core.db.session import Database
from core.db.tables import checkpoint
from core.jobs.attempt.fence import Fence
from core.jobs.checkpoints.records import NewCheckpoint, record_checkpoint
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.ledger.check import Ledger
from core.jobs.store_identity import (
    IdentifiedStore,
    WrongStore,
    adopt_store,
    establish_store_id,
    recorded_store_id,
)
from core.settings import Settings
from core.store.base import Store, StoreMissing, StoreTransient
from core.store.local import LocalStore
from core.store.location import StoreLocation
from core.store.marker import MARKER, create_marker, new_store_id, read_marker, replace_marker
from core.store.s3 import S3Store
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import new_checkpoint, running
from tests.support.s3 import in_bucket
from tests.support.service import ROOT
from tests.support.stores import Losable

Identified = Callable[[Store], IdentifiedStore]


def stored_checkpoint(db: Database, store: Store, folder: Path) -> tuple[Fence, NewCheckpoint]:
    """A running job with one checkpoint whose files are there."""
    fence = running(db)
    row = new_checkpoint(fence, 4)
    for name in ("weights", "manifest"):
        (folder / name).write_bytes(f"{name} {row.id}".encode())
        digest = store.put_file(folder / name, f"{row.key}/{name}")
        row.files[name] = {"name": name, "sha256": digest.sha256, "bytes": digest.bytes}
    weights = row.files["weights"]
    row = replace(row, sha256=weights["sha256"], bytes=weights["bytes"])
    record_checkpoint(db, fence, row, (), resumable=True)
    return fence, row


def statuses(db: Database) -> list[str]:
    with db.read() as connection:
        return list(connection.execute(checkpoint.select().with_only_columns(checkpoint.c.status)).scalars())


@POSTGRESQL_IS_SLOW
def test_a_new_database_and_its_store_get_one_id(db: Database, losable: Losable, identified: Identified) -> None:
    identified(losable.plain).ping()
    made = recorded_store_id(db)
    assert made is not None
    assert read_marker(losable.plain) == made
    identified(losable.plain).ping()
    assert (recorded_store_id(db), list(losable.plain.list("jobs/"))) == (made, [])


def test_a_store_that_is_away_says_so_and_is_harmless(
    db: Database, losable: Losable, identified: Identified, tmp_path: Path
) -> None:
    """Nothing is missing, nothing is written, nothing is removed, and no row goes: until it is back."""
    store = identified(losable.plain)
    fence, row = stored_checkpoint(db, store, tmp_path)
    care = GarbageCollector(db, store, Settings(home=tmp_path, orphan_seconds=0.001))
    key = f"{row.key}/weights"
    with db.write() as connection:
        connection.execute(update(checkpoint).values(status="doomed"))
    with losable.lost():
        for call in (
            store.ping,
            lambda: store.fetch(key, tmp_path / "back"),
            lambda: store.open_range(key),
            lambda: store.size(key),
            lambda: store.put_file(tmp_path / "weights", f"jobs/{fence.job_id}/1-9-ff/weights"),
            lambda: store.delete(key),
            lambda: list(store.list("jobs/")),
            care.delete_pending_checkpoints,
            care.delete_orphan_objects,
        ):
            with pytest.raises(StoreTransient) as caught:
                call()
            assert str(tmp_path) not in str(caught.value)
    assert statuses(db) == ["doomed"]
    assert store.fetch(key, tmp_path / "back").sha256 == row.files["weights"]["sha256"]
    assert care.delete_pending_checkpoints() == 1
    assert list(store.list("jobs/")) == []
    with pytest.raises(StoreMissing):
        store.size(key)


def test_a_ledger_of_a_store_that_is_away_is_no_list_of_losses(
    db: Database, losable: Losable, identified: Identified, tmp_path: Path
) -> None:
    store = identified(losable.plain)
    stored_checkpoint(db, store, tmp_path)
    with losable.lost(), pytest.raises(StoreTransient):
        list(Ledger(db, store).iter_findings())
    assert list(Ledger(db, store).iter_findings()) == []


@POSTGRESQL_IS_SLOW
def test_a_store_without_a_marker_is_trusted_if_it_has_what_the_database_names(
    db: Database, losable: Losable, identified: Identified, tmp_path: Path
) -> None:
    """As after an upgrade: the release before has left objects and no marker."""
    stored_checkpoint(db, losable.plain, tmp_path)
    with losable.lost(), pytest.raises(StoreTransient):
        identified(losable.plain).ping()
    assert (recorded_store_id(db), read_marker(losable.plain)) == (None, None)
    identified(losable.plain).ping()
    assert read_marker(losable.plain) == recorded_store_id(db)


def test_a_marker_without_an_id_is_adopted_under_the_same_test(db: Database, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    left = new_store_id()
    create_marker(store, left)
    stored_checkpoint(db, LocalStore(tmp_path / "other"), tmp_path)
    with pytest.raises(WrongStore):
        establish_store_id(db, store)
    assert recorded_store_id(db) is None
    (tmp_path / "other" / "jobs").rename(tmp_path / "store" / "jobs")
    assert establish_store_id(db, store) == recorded_store_id(db) == left


def test_a_new_database_does_not_take_the_store_of_another_one(
    db: Database, losable: Losable, identified: Identified, tmp_path: Path
) -> None:
    """Its sweep would remove every object there. An operator may say that it is meant."""
    theirs = new_store_id()
    create_marker(losable.plain, theirs)
    (tmp_path / "weights").write_bytes(b"of another database")
    losable.plain.put_file(tmp_path / "weights", "jobs/job_a/1-1-ff/weights")
    care = GarbageCollector(db, identified(losable.plain), Settings(home=tmp_path, orphan_seconds=0.001))
    time.sleep(0.01)
    with pytest.raises(WrongStore):
        care.delete_orphan_objects()
    assert [stored.key for stored in losable.plain.list("jobs/")] == ["jobs/job_a/1-1-ff/weights"]
    assert adopt_store(db, losable.plain)
    assert recorded_store_id(db) == read_marker(losable.plain) == theirs


SCRIPT = """
import os, signal, sys
from core.db.session import open_database
from core.jobs.store_identity import establish_store_id
from core.settings import Settings
from core.store import open_store

settings = Settings()
store = open_store(settings)
put = store.put_file

def killed(path, key):
    if sys.argv[1] == "after":
        put(path, key)
    os.kill(os.getpid(), signal.SIGKILL)

if sys.argv[1] != "whole":
    store.put_file = killed
print("ready", flush=True)
sys.stdin.readline()
print(establish_store_id(open_database(settings.resolved_database_url(), pool_size=1), store), flush=True)
"""


def starts(mode: str, url: str, settings: dict[str, str]) -> "subprocess.Popen[str]":
    named = {"database_url": url, **settings}
    environment = {name if name.startswith("aws_") else f"basin_{name}": value for name, value in named.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, mode],
        env={**os.environ, "PYTHONPATH": str(ROOT), **{name.upper(): value for name, value in environment.items()}},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@POSTGRESQL_IS_SLOW
def test_many_processes_that_start_at_once_agree(db: Database, database_url: str, tmp_path: Path) -> None:
    place = {"store_url": str(tmp_path / "store")}
    processes = [starts("whole", database_url, place) for _ in range(3)]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    found = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert found == {recorded_store_id(db)} == {read_marker(LocalStore(tmp_path / "store"))}


@pytest.fixture(params=["folder", "bucket"])
def configured(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, dict[str, str]]:
    """A store, and the settings that name it."""
    if request.param == "folder":
        return LocalStore(tmp_path / "store"), {"store_url": str(tmp_path / "store")}
    place: StoreLocation = request.getfixturevalue("bucket")
    return S3Store(place), in_bucket(place)


@POSTGRESQL_IS_SLOW
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_between_the_steps_loses_nothing(
    db: Database, database_url: str, configured: tuple[Store, dict[str, str]], when: str
) -> None:
    """The row of a process that was killed is rolled back; its marker, if it came so far, is adopted."""
    store, settings = configured
    process = starts(when, database_url, settings)
    process.communicate("\n", timeout=60)
    left = read_marker(store)
    assert (process.returncode, recorded_store_id(db)) == (-signal.SIGKILL, None)
    assert (left is not None) == (when == "after")
    made = establish_store_id(db, store)
    assert made == recorded_store_id(db) == read_marker(store)
    assert left in {None, made}


def test_a_marker_is_created_once(losable: Losable) -> None:
    first, second = new_store_id(), new_store_id()
    assert create_marker(losable.plain, first) == first
    assert create_marker(losable.plain, first) == first
    assert create_marker(losable.plain, second) == first
    replace_marker(losable.plain, second)
    assert read_marker(losable.plain) == second


def test_a_torn_marker_is_away_and_not_written_over(db: Database, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / MARKER).write_bytes(b"\xff" * 9)
    with pytest.raises(StoreTransient, match=MARKER):
        establish_store_id(db, store)
    assert recorded_store_id(db) is None


@POSTGRESQL_IS_SLOW
def test_a_store_is_adopted_if_it_has_what_the_database_names(
    db: Database, losable: Losable, identified: Identified, tmp_path: Path
) -> None:
    store = identified(losable.plain)
    stored_checkpoint(db, store, tmp_path)
    losable.plain.delete(MARKER)  # a backup of the objects alone was brought back
    with pytest.raises(WrongStore):
        store.ping()
    with losable.lost(), pytest.raises(StoreTransient):
        adopt_store(db, losable.plain)
    assert adopt_store(db, losable.plain)
    store.ping()
    assert not adopt_store(db, losable.plain)
    replace_marker(losable.plain, new_store_id())
    with pytest.raises(WrongStore):
        store.ping()
    assert adopt_store(db, losable.plain)
    store.ping()
