"""Retry and fork over HTTP."""

import time

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.keys import create_key
from core.lifecycle import Status
from tests.support.jobs import OWNER, new_checkpoint, running, taken


@pytest.fixture
def headers(service: Service) -> dict[str, str]:
    _, text = create_key(service.db, owner=OWNER)
    return {"Authorization": f"Bearer {text}"}


def failed(service: Service) -> str:
    fence = running(service.db)
    for step in (4, 8):
        record_checkpoint(service.db, fence, new_checkpoint(fence, step), (), resumable=True)
    finish_job(service.db, fence, TerminalState(Status.FAILED))
    return f"/v1/jobs/{fence.job_id}"


def test_a_retry_is_a_new_job(client: TestClient, service: Service, headers: dict[str, str]) -> None:
    path = failed(service)
    parent = client.get(path, headers=headers).json()
    answer = client.post(parent["links"]["retry"], headers=headers)
    child = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/jobs/{child['id']}")
    assert (child["status"], child["retried_from"]) == ("queued", {"job": parent["id"], "step": 8})
    assert (child["forked_from"], child["children"], child["progress"]["step"]) == (None, [], 8)
    assert client.get(path, headers=headers).json()["children"] == [child["id"]]
    assert service.hints.heard == ["cpu"]  # type: ignore[attr-defined]
    refused = client.post(f"{path}/retry", headers=headers, json={})
    assert (refused.status_code, refused.json()["retried_as"]) == (409, child["id"])
    key = headers | {"Idempotency-Key": "one more"}
    more = [client.post(f"{path}/retry", headers=key, json={"again": True}) for _ in range(2)]
    assert [one.status_code for one in more] == [201, 200]
    assert more[0].json()["id"] == more[1].json()["id"]
    other = client.post(f"{path}/fork", headers=key, json={})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


@pytest.mark.parametrize("verb", ["retry", "fork", "from"])
def test_a_parent_that_gains_or_loses_a_child_has_another_etag(
    client: TestClient, service: Service, headers: dict[str, str], verb: str
) -> None:
    """`children` is a part of the job: who polls with If-None-Match would never hear of it."""
    path = failed(service)
    seen = [client.get(path, headers=headers)]
    if verb == "from":
        body = {"model": {"name": "mlp", "hidden": [8]}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}}
        job = path.removeprefix("/v1/jobs/")
        answer = client.post("/v1/jobs", headers=headers, json=body | {"epochs": 2, "from": {"job": job}})
    else:
        answer = client.post(f"{path}/{verb}", headers=headers)
    assert answer.status_code == 201, answer.text
    child = answer.json()["links"]
    seen.append(client.get(path, headers=headers | {"If-None-Match": seen[0].headers["etag"]}))
    client.post(child["cancel"], headers=headers)
    assert client.delete(child["self"], headers=headers).status_code == 204
    seen.append(client.get(path, headers=headers | {"If-None-Match": seen[1].headers["etag"]}))
    assert [one.status_code for one in seen] == [200, 200, 200]
    assert [len(one.json()["children"]) for one in seen] == [0, 1, 0]


def test_the_rest_is_guessed_by_the_childs_own_pace(
    client: TestClient, service: Service, headers: dict[str, str]
) -> None:
    """A parent made 8 of 12 steps; its child needed half a second or more for the 9th, so the other 3 take three times
    as long. By the share of the whole it would be a third of that half a second.
    """
    child = client.post(f"{failed(service)}/retry", headers=headers).json()
    claim = taken(service.db)
    assert claim is not None
    time.sleep(0.5)
    progress = {"step": 9, "steps": 12, "fraction": 9 / 12}
    record_heartbeat(service.db, Fence(child["id"], claim.attempt), lease_seconds=60, progress=progress)
    found = client.get(child["links"]["self"], headers=headers).json()
    assert found["progress"]["eta_seconds"] >= 1.5


def test_a_fork_is_a_new_job_with_changes(client: TestClient, service: Service, headers: dict[str, str]) -> None:
    path = failed(service)
    changes = {"optimizer": {"name": "sgd", "lr": 0.01}, "epochs": 9, "name": "slow end"}
    answer = client.post(f"{path}/fork", headers=headers, json={"at": 4, "changes": changes})
    child = answer.json()
    assert (answer.status_code, child["forked_from"]["step"], child["retried_from"]) == (201, 4, None)
    assert (child["optimizer"]["lr"], child["epochs"], child["name"]) == (0.01, 9, "slow end")
    wrong = {"at": 4, "changes": {"model": {"name": "logistic"}, "schedule": {"name": "cosin"}}}
    refused = client.post(f"{path}/fork", headers=headers, json=wrong).json()
    assert [(one["pointer"], one["hint"]) for one in refused["errors"]] == [
        ("/changes/schedule/name", 'did you mean "cosine"?')
    ]
    del wrong["changes"]["schedule"]  # type: ignore[attr-defined]
    refused = client.post(f"{path}/fork", headers=headers, json=wrong).json()
    assert [one["pointer"] for one in refused["errors"]] == ["/changes/model"]
    refused = client.post(f"{path}/fork", headers=headers, json={"at": 5}).json()
    assert [(one["pointer"], one["hint"]) for one in refused["errors"]] == [("/at", "steps with a checkpoint: 8, 4")]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"again": 1}, "/again"),
        ({"agian": True}, "/agian"),
        ({"at": -1}, "/at"),
        ({"at": "last"}, "/at"),
        ({"changes": []}, "/changes"),
    ],
)
def test_wrong_bodies_are_refused(
    client: TestClient, service: Service, headers: dict[str, str], body: dict[str, object], pointer: str
) -> None:
    verb = "retry" if pointer.startswith("/ag") else "fork"
    answer = client.post(f"{failed(service)}/{verb}", headers=headers, json=body)
    assert answer.status_code == 422
    assert {one["pointer"].removesuffix("/int") for one in answer.json()["errors"]} == {pointer}
