"""A prepare job in the light lane: from uploaded pieces to shards in the store, and every way in which it may end."""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from safetensors.numpy import load

from core.db.session import Database
from core.jobs.queries import get_job_view
from core.jobs.verbs import request_cancel
from core.store.base import Store, StoreTransient
from core.store.local import LocalStore
from core.store.location import StoreLocation
from core.store.s3 import S3Store
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, submitted, taken
from tests.support.npz_uploads import LANE, dataset, make_context, npz_bytes, stored_files, upload
from worker.attempt import WorkerContext
from worker.prepare.launch import PrepareLauncher
from worker.supervisor import serve_one


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def make_worker(db: Database, store: Store, tmp_path: Path) -> Iterator[Callable[..., WorkerContext]]:
    """Workers of one home; `timings` are settings."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "w", **timings: Any) -> WorkerContext:
            return stack.enter_context(make_context(db, store, tmp_path, name, **timings))

        yield make


def child(module: str = "worker.prepare") -> psutil.Process:
    """The prepare process of this test, as soon as it runs."""
    deadline = time.monotonic() + 20.0
    while time.monotonic() < deadline:
        for process in psutil.Process().children():
            with contextlib.suppress(psutil.Error):
                if module in process.cmdline():
                    return process
        time.sleep(0.005)
    raise AssertionError("no prepare process")


def serving(worker: WorkerContext) -> threading.Thread:
    thread = threading.Thread(target=serve_one, args=(worker, LANE), daemon=True)
    thread.start()
    return thread


def test_an_upload_becomes_ready(db: Database, store: Store, make_worker: Callable[..., WorkerContext]) -> None:
    content = npz_bytes()
    dataset_id, job_id = upload(db, store, content, sha256=hashlib.sha256(content).hexdigest())
    worker = make_worker()
    assert serve_one(worker, LANE)
    view, job = dataset(db, dataset_id), get_job_view(db, OWNER, job_id)
    assert (view.status, view.kind, view.examples) == ("ready", "arrays", 1000)
    assert (job.status, job.stop_reason, job.needs) == ("succeeded", "completed", "light")
    files = stored_files(store, view.version or "")
    manifest = b"".join(store.open_range(f"datasets/{view.version}/manifest.json"))
    assert hashlib.sha256(manifest).hexdigest() == view.version
    shard = load(b"".join(store.open_range(f"datasets/{view.version}/rows-00000.safetensors")))
    assert set(files) == {"manifest.json", "rows-00000.safetensors"}
    assert shard["inputs"].shape == (1000, 4)
    assert np.array_equal(shard["targets"], np.arange(1000) % 3)
    assert view.confined is not None
    assert list((make_worker("other").settings.scratch / "w").iterdir()) == [
        make_worker("x").settings.scratch / "w/lock"
    ]


def test_the_same_bytes_are_the_same_version_and_stored_once(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    worker = make_worker()
    one, _ = upload(db, store, npz_bytes())
    two, _ = upload(db, store, npz_bytes(), piece=777, name="other")
    assert serve_one(worker, LANE)
    times = {each.key: each.modified_at for each in store.list("datasets/")}
    assert serve_one(worker, LANE)
    first, second = dataset(db, one), dataset(db, two)
    assert (second.status, second.version) == ("ready", first.version)
    assert {each.key: each.modified_at for each in store.list("datasets/")} == times


@POSTGRESQL_IS_SLOW
def test_a_bad_file_is_refused_and_its_job_has_succeeded(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    dataset_id, job_id = upload(db, store, b"PK\x03\x04" + bytes(100))
    assert serve_one(make_worker(), LANE)
    view, job = dataset(db, dataset_id), get_job_view(db, OWNER, job_id)
    assert (view.status, job.status, job.stop_reason) == ("refused", "succeeded", "completed")
    assert set(view.errors[0]) == {"file", "row", "column", "code", "detail"}
    assert list(store.list("datasets/")) == []


@POSTGRESQL_IS_SLOW
def test_other_bytes_than_announced_are_refused(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    dataset_id, job_id = upload(db, store, npz_bytes(), sha256="ab" * 32)
    assert serve_one(make_worker(), LANE)
    view = dataset(db, dataset_id)
    assert (view.status, view.errors[0]["code"]) == ("refused", "wrong_digest")
    assert "ab" * 32 in view.errors[0]["detail"]
    assert get_job_view(db, OWNER, job_id).status == "succeeded"


@POSTGRESQL_IS_SLOW
def test_a_piece_that_is_damaged_in_the_store_fails_the_job(
    db: Database, store: Store, tmp_path: Path, make_worker: Callable[..., WorkerContext]
) -> None:
    dataset_id, job_id = upload(db, store, npz_bytes())
    path = sorted((tmp_path / "store" / "uploads" / dataset_id).iterdir())[1]
    path.write_bytes(bytes(path.stat().st_size))
    assert serve_one(make_worker(), LANE)
    job = get_job_view(db, OWNER, job_id)
    assert (job.status, (job.error or {})["code"]) == ("failed", "bad_data")
    assert "from 10000 on are damaged" in (job.error or {})["message"]
    assert dataset(db, dataset_id).status == "failed"


@POSTGRESQL_IS_SLOW
def test_a_process_that_is_killed_is_started_again_with_the_same_result(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    worker, content = make_worker(), npz_bytes(rows=200_000)
    known, _ = upload(db, LocalStore(worker.settings.home / "other"), content, piece=1 << 20)
    again = make_worker("v")
    object.__setattr__(again, "store", LocalStore(worker.settings.home / "other"))
    assert serve_one(again, LANE)
    dataset_id, job_id = upload(db, store, content, piece=1 << 20, name="second")
    thread = serving(worker)
    child().kill()
    thread.join(30.0)
    assert get_job_view(db, OWNER, job_id).status == "queued"
    assert list(store.list("datasets/")) == []
    assert serve_one(worker, LANE)
    assert dataset(db, dataset_id).version == dataset(db, known).version


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prepare process begins and then hangs."""
    launcher = partial(PrepareLauncher, module="tests.support.hanging_prepare")
    monkeypatch.setattr("worker.datasets.attempt.PrepareLauncher", launcher)


@POSTGRESQL_IS_SLOW
@pytest.mark.usefixtures("hanging")
def test_a_process_that_hangs_is_ended_by_the_clock(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    dataset_id, job_id = upload(db, store, npz_bytes())
    assert serve_one(make_worker(prepare_seconds=3.0), LANE)
    view = dataset(db, dataset_id)
    assert (view.status, view.errors[0]["code"]) == ("refused", "too_large")
    assert get_job_view(db, OWNER, job_id).status == "succeeded"


@POSTGRESQL_IS_SLOW
@pytest.mark.usefixtures("hanging")
def test_a_process_that_says_nothing_is_ended_by_its_silence(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    dataset_id, _ = upload(db, store, npz_bytes())
    assert serve_one(make_worker(stall_seconds=0.5), LANE)  # five times as long before the first step
    assert dataset(db, dataset_id).errors[0]["code"] == "too_large"


@pytest.mark.usefixtures("hanging")
@POSTGRESQL_IS_SLOW
def test_a_cancel_ends_the_process(db: Database, store: Store, make_worker: Callable[..., WorkerContext]) -> None:
    dataset_id, job_id = upload(db, store, npz_bytes())
    thread, process = serving(make_worker()), child("tests.support.hanging_prepare")
    request_cancel(db, OWNER, job_id)
    thread.join(20.0)
    assert not process.is_running()
    assert get_job_view(db, OWNER, job_id).status == "cancelled"
    assert dataset(db, dataset_id).status == "cancelled"


@POSTGRESQL_IS_SLOW
@pytest.mark.usefixtures("hanging")
def test_a_worker_that_stops_gives_the_job_back_at_once(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    _, job_id = upload(db, store, npz_bytes())
    worker = make_worker()
    thread, process = serving(worker), child("tests.support.hanging_prepare")
    worker.stopping.set()
    thread.join(10.0)
    assert not process.is_running()
    job = get_job_view(db, OWNER, job_id)
    assert (job.status, job.losses) == ("queued", 0)


@POSTGRESQL_IS_SLOW
def test_the_store_may_be_away_when_the_shards_are_due(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload waits for it; nothing of the version is visible before its manifest, which comes last."""
    dataset_id, _ = upload(db, store, npz_bytes())
    tried, put = list[str](), store.put_file

    def put_file(path: Path, key: str) -> Any:
        tried.append(key)
        if len(tried) <= 2:
            raise StoreTransient("away")
        return put(path, key)

    monkeypatch.setattr(store, "put_file", put_file)
    assert serve_one(make_worker(), LANE)
    assert dataset(db, dataset_id).status == "ready"
    assert [key.rpartition("/")[2] for key in tried] == ["rows-00000.safetensors"] * 3 + ["manifest.json"]


@POSTGRESQL_IS_SLOW
def test_a_full_disk_is_the_fault_of_the_machine(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    _, job_id = upload(db, store, npz_bytes())
    assert serve_one(make_worker(machine_pause_seconds=0.1), LANE)
    job = get_job_view(db, OWNER, job_id)
    assert (job.status, job.losses) == ("queued", 0)


@POSTGRESQL_IS_SLOW
def test_a_worker_whose_parser_cannot_start_leaves_it_to_others(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where pyarrow is not installed, or a required kind of isolation is missing. After three tries it fails."""
    launcher = partial(PrepareLauncher, module="tests.no_module")
    monkeypatch.setattr("worker.datasets.attempt.PrepareLauncher", launcher)
    dataset_id, job_id = upload(db, store, npz_bytes())
    worker = make_worker(machine_pause_seconds=0.1)
    assert serve_one(worker, LANE)
    assert get_job_view(db, OWNER, job_id).status == "queued"
    assert serve_one(worker, LANE)
    assert serve_one(worker, LANE)
    job = get_job_view(db, OWNER, job_id)
    assert job.status == "failed"
    assert "its parser cannot start on this worker" in (job.error or {})["message"]
    assert "tests.no_module" in (job.error or {})["message"]
    assert dataset(db, dataset_id).status == "failed"


@POSTGRESQL_IS_SLOW
def test_no_slot_takes_it_and_the_lane_takes_nothing_else(
    db: Database, store: Store, make_worker: Callable[..., WorkerContext]
) -> None:
    training = submitted(db)
    assert not serve_one(make_worker(), LANE)
    upload(db, store, npz_bytes())
    found = taken(db)
    assert found is not None
    assert found.job_id == training
    assert taken(db) is None


@pytest.mark.slow
def test_it_works_with_a_bucket(db: Database, bucket: StoreLocation, make_worker: Callable[..., WorkerContext]) -> None:
    worker, store = make_worker(), S3Store(bucket)
    object.__setattr__(worker, "store", store)
    dataset_id, _ = upload(db, store, npz_bytes())
    assert serve_one(worker, LANE)
    view = dataset(db, dataset_id)
    assert view.status == "ready"
    assert set(stored_files(store, view.version or "")) == {"manifest.json", "rows-00000.safetensors"}
