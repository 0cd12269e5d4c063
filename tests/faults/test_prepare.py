"""Preparing a dataset on real workers: beside trainings, and killed at every moment. One version, or none."""

import contextlib
import time
from collections.abc import Callable

import psutil
import pytest
from sqlalchemy import select

from core.db.tables import job
from core.jobs.datasets.views import DatasetView
from core.jobs.ledger.check import Ledger
from core.store.base import Store
from core.store.local import LocalStore
from core.store.location import StoreLocation
from core.store.s3 import S3Store
from tests.faults.conftest import SHORT
from tests.support.broker import Broker
from tests.support.npz_uploads import dataset, npz_bytes, stored_files, upload
from tests.support.service import Job, Part, Service, gone, until

PIECE = 1 << 20
CONTENT = npz_bytes(rows=100_000)


class Desk:
    """Uploads to a service by the functions of the domain, and what its store has."""

    def __init__(self, service: Service, store: Store) -> None:
        self.service = service
        self.store = store

    def upload(self, content: bytes = CONTENT) -> str:
        with self.service.database() as db:
            return upload(db, self.store, content, PIECE)[0]

    def view(self, dataset_id: str) -> DatasetView:
        with self.service.database() as db:
            return dataset(db, dataset_id)

    def ended(self, dataset_id: str) -> DatasetView:
        def look() -> DatasetView | None:
            found = self.view(dataset_id)
            return None if found.status in {"queued", "preparing"} else found

        return until(f"dataset {dataset_id}", look)


def preparing(part: Part) -> psutil.Process:
    """The prepare process of a worker, as soon as it runs."""

    def look() -> psutil.Process | None:
        for process in part.tree():
            with contextlib.suppress(psutil.Error):
                if "worker.prepare" in process.cmdline():
                    return process
        return None

    return until("a prepare process", look)


@pytest.fixture
def desk(sqlite_service: Service) -> Desk:
    return Desk(sqlite_service, LocalStore(sqlite_service.home / "store"))


def test_a_preparation_starts_while_every_slot_trains(desk: Desk) -> None:
    service = desk.service
    job_id = service.submit(SHORT | {"epochs": 2000})
    service.when_at(job_id, 10)
    view = desk.ended(desk.upload())
    assert view.status == "ready"
    assert service.job(job_id)["status"] == "running"
    assert _waited(desk, view) < 2.0
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    service.ended(job_id)


def _waited(desk: Desk, view: DatasetView) -> float:
    """Seconds between the end of the upload and the claim."""
    with desk.service.database() as db, db.read() as connection:
        created, started = connection.execute(
            select(job.c.created_at, job.c.started_at).where(job.c.id == view.job_id)
        ).one()
    return float(started - created)


def test_a_preparation_starts_without_a_broker(brokerless_service: Service) -> None:
    desk = Desk(brokerless_service, LocalStore(brokerless_service.home / "store"))
    job_id = brokerless_service.submit(SHORT | {"epochs": 2000})
    brokerless_service.when_at(job_id, 10)
    view = desk.ended(desk.upload())
    assert (view.status, brokerless_service.job(job_id)["status"]) == ("ready", "running")
    assert _waited(desk, view) < 2.0
    brokerless_service.http.post(f"/v1/jobs/{job_id}/cancel")
    brokerless_service.ended(job_id)


@pytest.mark.slow
def test_the_hint_of_a_light_job_has_a_queue_of_its_own(
    serve: Callable[[str, Broker | None], Service], sqlite_url: str, broker: Broker
) -> None:
    """Without a poll: only a hint can start it, and the one thread that trains does not take it."""
    service = serve(sqlite_url, broker)
    service.environment["BASIN_POLL_SECONDS"] = "600"
    service.heal()
    desk = Desk(service, LocalStore(service.home / "store"))
    job_id = service.submit(SHORT | {"epochs": 2000})
    service.when_at(job_id, 10)
    view = desk.ended(desk.upload())
    assert (view.status, service.job(job_id)["status"]) == ("ready", "running")
    assert _waited(desk, view) < 2.0


def test_a_worker_shows_its_lane(desk: Desk) -> None:
    def look() -> bool:
        found = desk.service.http.get("/v1/workers").json()["data"]
        slots = [each["slots"] for each in found if each["status"] == "live"]  # one that was killed is so for a lease
        return slots == [{"cpu": {"slots": 1, "free": 1}, "light": {"slots": 1, "free": 1}}]

    until("the worker is idle", look)
    assert 'basin_slots{kind="light",state="in_service"} 1.0' in desk.service.http.get("/metrics").text


def test_its_process_is_killed(desk: Desk) -> None:
    dataset_id = desk.upload()
    process = preparing(desk.service.worker)
    process.kill()
    view = desk.ended(dataset_id)
    assert (view.status, desk.view(dataset_id).examples) == ("ready", 100_000)


def test_its_worker_is_killed_and_another_makes_the_same_version(desk: Desk) -> None:
    """The process dies with its worker, also when it is stopped; nothing of the version is visible before the end."""
    service, known = desk.service, desk.ended(desk.upload()).version
    for each in desk.store.list("datasets/"):
        desk.store.delete(each.key)
    dataset_id = desk.upload()
    worker, process = service.worker, preparing(service.worker)
    process.suspend()
    worker.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        process.resume()  # it may have been stopped before it asked to end with its parent
    assert gone(process, 5.0)
    assert desk.view(dataset_id).status in {"preparing", "queued"}
    assert list(desk.store.list("datasets/")) == []
    service.start_worker()
    view = desk.ended(dataset_id)
    assert (view.status, view.version) == ("ready", known)
    assert set(stored_files(desk.store, view.version or "")) == {"manifest.json", "rows-00000.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.3, 0.6, 0.9, 1.2])
def test_its_worker_is_killed_at_any_moment(desk: Desk, seconds: float) -> None:
    """While it reads, writes, uploads or ends: one version in the store, whole, and no other object."""
    service, known = desk.service, desk.ended(desk.upload()).version
    for each in desk.store.list("datasets/"):
        desk.store.delete(each.key)
    dataset_id = desk.upload()
    preparing(service.worker)
    time.sleep(seconds)
    service.worker.kill()
    service.start_worker()
    view = desk.ended(dataset_id)
    assert (view.status, view.version) == ("ready", known)
    assert set(stored_files(desk.store, view.version or "")) == {"manifest.json", "rows-00000.safetensors"}
    with service.database() as db:
        assert dataset_id not in " ".join(each.message for each in Ledger(db, desk.store, digests=True).iter_findings())


def test_a_worker_that_stops_while_it_prepares_gives_the_job_back(desk: Desk) -> None:
    service = desk.service
    dataset_id = desk.upload()
    worker, process = service.worker, preparing(service.worker)
    before = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - before < 15.0
    assert gone(process, 1.0)
    service.start_worker()
    assert desk.ended(dataset_id).status == "ready"


@pytest.mark.slow
def test_on_postgresql_with_a_bucket(
    serve: Callable[[str, Broker | None], Service], postgresql_url: str, bucket: StoreLocation
) -> None:
    service = serve(postgresql_url, None)
    service.environment |= {
        "BASIN_STORE_URL": f"s3://{bucket.bucket.name}/{bucket.bucket.prefix}",
        "BASIN_S3_ENDPOINT": bucket.endpoint,
        "AWS_ACCESS_KEY_ID": bucket.key_id,
        "AWS_SECRET_ACCESS_KEY": bucket.secret,
    }
    service.heal()
    desk = Desk(service, S3Store(bucket))
    known = desk.ended(desk.upload()).version
    dataset_id = desk.upload()
    worker = service.worker
    preparing(worker).kill()
    worker.kill()
    service.start_worker()
    view = desk.ended(dataset_id)
    assert (view.status, view.version) == ("ready", known)
    assert set(stored_files(desk.store, view.version or "")) == {"manifest.json", "rows-00000.safetensors"}


def test_over_http_from_a_file_to_weights(sqlite_service: Service) -> None:
    """As a user does it: send the bytes, wait until they are ready, train on their name."""
    http = sqlite_service.http
    sent = http.post(
        "/v1/datasets?name=mine", content=npz_bytes(), headers={"content-type": "application/octet-stream"}
    )
    assert sent.status_code == 202, sent.text
    place = f"/v1/datasets/{sent.json()['id']}"

    def look() -> Job | None:
        found: Job = http.get(place).json()
        return found if found["status"] not in {"uploading", "queued", "preparing"} else None

    shown = until("the dataset", look)
    assert (shown["status"], shown["examples"], shown["kind"]) == ("ready", 1000, "arrays"), shown
    body = {
        "model": {"name": "mlp", "hidden": [8]},
        "data": {"name": "dataset", "dataset": "mine"},
        "optimizer": {"name": "sgd", "lr": 0.1},
        "epochs": 2,
    }
    job_id = sqlite_service.submit(body)
    job = sqlite_service.ended(job_id)
    assert job["status"] == "succeeded", job
    assert job["data"]["resolved"]["version"] == shown["version"].removeprefix("sha256:")
    assert http.get(place).json()["used_by"] == 1
