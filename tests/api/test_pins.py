"""Pins over HTTP."""

from pathlib import Path

from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.keys import create_key
from core.lifecycle import Status
from tests.api.test_checkpoints import put_checkpoint
from tests.support.jobs import new_checkpoint


def test_a_pin_shows_and_comes_off(client: TestClient, service: Service, tmp_path: Path) -> None:
    stored = put_checkpoint(service, tmp_path)
    own, fence = f"/v1/checkpoints/{stored.id}", Fence(stored.job, 1)
    before = client.get(own).json()
    assert (before["pinned"], before["superseded"], before["links"]["pin"]) == (False, False, f"{own}/pin")
    for _ in range(2):
        answer = client.post(f"{own}/pin")
        assert (answer.status_code, answer.json()) == (200, before | {"pinned": True})
    assert client.get(own).json() == before | {"pinned": True}
    for step in (10, 20, 30):
        record_checkpoint(service.db, fence, new_checkpoint(fence, step), [], resumable=True)
    listed = client.get(f"/v1/jobs/{stored.job}/checkpoints").json()["data"]
    assert [(one["step"], one["pinned"]) for one in listed] == [(8, True), (20, False), (30, False)]
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    refused = client.delete(f"/v1/jobs/{stored.job}")
    assert (refused.status_code, refused.json()["pinned"]) == (409, [stored.id])
    assert "Unpin them" in refused.json()["detail"]
    for _ in range(2):
        assert client.delete(f"{own}/pin").status_code == 204
    assert client.get(own).status_code == 404, "it is not among the newest two"
    late = client.post(f"{own}/pin")
    assert (late.status_code, late.json()["code"]) == (409, "conflict")
    assert client.delete(f"/v1/jobs/{stored.job}").status_code == 204
    assert client.post(f"{own}/pin").status_code == 404


def test_a_pin_of_somebody_elses(client: TestClient, service: Service, tmp_path: Path) -> None:
    stored = put_checkpoint(service, tmp_path)
    own = f"/v1/checkpoints/{stored.id}/pin"
    keys = {
        (owner, scope): {"Authorization": f"Bearer {create_key(service.db, owner=owner, scopes=(scope,))[1]}"}
        for owner in ("bob", "local")
        for scope in ("read", "write")
    }
    for (owner, scope), headers in keys.items():
        expected = 403 if scope == "read" else 404 if owner == "bob" else None
        posted, gone = client.post(own, headers=headers), client.delete(own, headers=headers)
        assert (posted.status_code, gone.status_code) == (expected or 200, expected or 204), (owner, scope)
