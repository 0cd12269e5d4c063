"""If-Match: whoever saw an older state changes nothing, whatever the request."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.errors import PreconditionFailed
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.keys import create_key
from core.jobs.queries import job_version
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from tests.api.test_checkpoints import put_checkpoint
from tests.api.test_jobs import posted

STALE = ('W/"999"', '"nonsense"', "")


def refuses_then_takes(client: TestClient, own: str, method: str, path: str, status: int, **more: Any) -> Any:
    """The same request with stale tags, then with the fresh one. Nothing has changed until then."""
    before = client.get(own)
    for tag in STALE:
        answer = client.request(method, path, headers={"If-Match": tag}, **more)
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed"), (method, path, tag)
    assert client.get(own).json() == before.json()
    done = client.request(method, path, headers={"If-Match": before.headers["etag"]}, **more)
    assert done.status_code == status, done.text
    return done


def test_verbs_and_deletion_of_a_job(client: TestClient) -> None:
    own = posted(client)["links"]["self"]
    first = client.get(own).headers["etag"]
    refuses_then_takes(client, own, "POST", f"{own}/pause", 202)
    refuses_then_takes(client, own, "POST", f"{own}/resume", 202)
    refuses_then_takes(client, own, "POST", f"{own}/cancel", 202)
    assert client.delete(own, headers={"If-Match": first}).status_code == 412
    refuses_then_takes(client, own, "DELETE", own, 204)
    assert client.get(own).status_code == 404


def test_children_of_a_job(client: TestClient, service: Service, tmp_path: Path) -> None:
    """A promise that was kept is kept again, though the child has changed its parent."""
    stored = put_checkpoint(service, tmp_path)
    own = f"/v1/jobs/{stored.job}"
    finish_job(service.db, Fence(stored.job, 1), TerminalState(Status.FAILED, "error"))
    refuses_then_takes(client, own, "POST", f"{own}/fork", 201, json={})
    tag = client.get(own).headers["etag"]
    refuses_then_takes(client, own, "POST", f"{own}/retry", 201)
    headers = {"If-Match": client.get(own).headers["etag"], "Idempotency-Key": "once"}
    again = {"json": {"again": True}, "headers": headers}
    made, repeated = client.post(f"{own}/retry", **again), client.post(f"{own}/retry", **again)
    assert (made.status_code, repeated.status_code, repeated.json()["id"]) == (201, 200, made.json()["id"])
    assert client.post(f"{own}/fork", headers={"If-Match": tag}).status_code == 412


def test_analyses(client: TestClient) -> None:
    job = posted(client)["id"]
    own = client.post("/v1/analyses", json={"kind": "lr_range", "job": job}).json()["links"]["self"]
    refuses_then_takes(client, own, "POST", f"{own}/pause", 202)
    refuses_then_takes(client, own, "POST", f"{own}/resume", 202)
    refuses_then_takes(client, own, "POST", f"{own}/cancel", 202)
    refuses_then_takes(client, own, "DELETE", own, 204)


def test_pins(client: TestClient, service: Service, tmp_path: Path) -> None:
    own = f"/v1/checkpoints/{put_checkpoint(service, tmp_path).id}"
    before = client.get(own).headers["etag"]
    assert refuses_then_takes(client, own, "POST", f"{own}/pin", 200).headers["etag"] != before
    assert client.delete(f"{own}/pin", headers={"If-Match": before}).status_code == 412
    refuses_then_takes(client, own, "DELETE", f"{own}/pin", 204)


def test_keys(client: TestClient, service: Service) -> None:
    _, text = create_key(service.db, owner="local", scopes=("read", "write", "admin"))
    other, _ = create_key(service.db, owner="local")
    client.headers["Authorization"] = f"Bearer {text}"
    own = f"/v1/keys/{other.id}"
    before = client.get(own).headers["etag"]
    refuses_then_takes(client, own, "DELETE", own, 204)
    assert client.delete(own, headers={"If-Match": before}).status_code == 412
    assert client.delete(own).status_code == 204


def test_of_many_who_saw_the_same_one_gets_it(client: TestClient, service: Service) -> None:
    """The condition is looked at under the lock that the change is made under."""
    job_id = posted(client)["id"]
    seen = job_version(service.db, "default", job_id)

    def attempt(_: int) -> bool:
        try:
            request_cancel(service.db, "default", job_id, fits=lambda version: version == seen)
        except PreconditionFailed:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(16))) == 1


@pytest.mark.parametrize("tag", ["*", None])
def test_any_state_will_do(client: TestClient, tag: str | None) -> None:
    own = posted(client)["links"]["self"]
    headers = {} if tag is None else {"If-Match": tag}
    assert client.post(f"{own}/cancel", headers=headers).status_code == 202
    assert client.delete(own, headers=headers).status_code == 204
