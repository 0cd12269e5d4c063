"""Jobs that train on an uploaded dataset: pinned at submit, kept while they live, said to be gone afterwards."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.checkpoints.records import record_checkpoint
from core.lifecycle import Status
from tests.api.test_datasets import sent
from tests.api.test_jobs import taken
from tests.support.jobs import chunk, new_checkpoint, set_state
from tests.support.uploads import CSV, prepare

Json = dict[str, Any]
JOB: Json = {
    "model": {"name": "mlp", "hidden": [8]},
    "data": {"name": "dataset", "dataset": "penguins", "target": "species", "validation": 0.2, "test": 0.2},
    "optimizer": {"name": "adam"},
    "epochs": 2,
}
MANY = CSV + b"Adelie,40.0\nGentoo,48.0\n" * 10


@pytest.fixture
def data(client: TestClient, service: Service) -> str:
    dataset_id = sent(client, MANY)
    prepare(service.db, service.store, dataset_id, rows=200)
    return dataset_id


def posted(client: TestClient, **changes: Any) -> Json:
    answer = client.post("/v1/jobs", json=JOB | changes)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_name_is_pinned_to_its_newest_dataset(client: TestClient, service: Service, data: str) -> None:
    job = posted(client)
    assert job["data"]["dataset"] == data
    newer = sent(client, MANY + b"Gentoo,50.0\n")
    prepare(service.db, service.store, newer, rows=200)
    assert client.get(f"/v1/jobs/{job['id']}").json()["data"]["dataset"] == data
    assert posted(client)["data"]["dataset"] == newer
    assert posted(client, data=JOB["data"] | {"dataset": data})["data"]["dataset"] == data
    dry = client.post("/v1/jobs?dry_run=true", json=JOB).json()
    assert dry["spec"]["data"]["dataset"] == newer
    assert client.get(f"/v1/datasets/{data}").json()["used_by"] == 2


def test_what_is_not_there_is_said_with_its_pointer(client: TestClient, service: Service) -> None:
    waits = sent(client, MANY, name="waits")
    for name in ("nothing", "ds_01hzzzzzzzzzzzzzzzzzzzzzzz", "waits", waits):
        answer = client.post("/v1/jobs", json=JOB | {"data": JOB["data"] | {"dataset": name}})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/data/dataset"), answer.text


def test_a_dataset_stays_while_jobs_live(client: TestClient, service: Service, data: str) -> None:
    first, second = posted(client)["id"], posted(client)["id"]
    refused = client.delete(f"/v1/datasets/{data}")
    assert (refused.status_code, refused.json()["needed_by"]) == (409, sorted([first, second]))
    for job_id in (first, second):
        assert client.post(f"/v1/jobs/{job_id}/cancel").json()["status"] == "cancelled"
    assert client.delete(f"/v1/datasets/{data}").status_code == 204
    assert client.get(f"/v1/jobs/{first}").json()["data"]["dataset"] == data, "what it was trained on stays written"


def test_what_goes_on_without_its_data_is_told_so(client: TestClient, service: Service, data: str) -> None:
    """Retry, fork, and an analysis that needs the data."""
    job_id = posted(client)["id"]
    fence = taken(service)
    row = new_checkpoint(fence, 1)
    record_checkpoint(service.db, fence, row, [chunk("train.loss", 0, 1)], resumable=True)
    finish_job(service.db, fence, TerminalState(Status.FAILED, None, {"code": "stalled", "message": "m"}))
    fork = {"at": row.id, "changes": {"epochs": 5}}
    analysis = {"kind": "sharpness", "checkpoint": row.id}
    here = [
        client.post(f"/v1/jobs/{job_id}/retry"),
        client.post(f"/v1/jobs/{job_id}/fork", json=fork),
        client.post("/v1/analyses", json=analysis),
    ]
    assert [answer.status_code for answer in here] == [201] * 3, [answer.text for answer in here]
    assert client.delete(f"/v1/datasets/{data}").json()["needed_by"] == sorted(each.json()["id"] for each in here)
    for answer in here:
        set_state(service.db, answer.json()["id"], status="cancelled")
    assert client.delete(f"/v1/datasets/{data}").status_code == 204
    gone = [
        client.post(f"/v1/jobs/{job_id}/retry", json={"again": True}),
        client.post(f"/v1/jobs/{job_id}/fork", json=fork),
        client.post("/v1/analyses", json=analysis),
    ]
    assert [(answer.status_code, answer.json()["code"]) for answer in gone] == [(409, "data_gone")] * 3
