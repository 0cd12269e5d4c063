"""Analyses over HTTP: asked for, read, stopped, deleted; on SQLite and on PostgreSQL."""

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from tests.api.test_jobs import taken
from tests.support.jobs import HeardHints, new_checkpoint, small_spec

ID = re.compile(r"an_[0-7][0-9a-hjkmnp-tv-z]{25}")
NUMBERS = {"partial": False, "average": {"val": {"loss": float("nan")}}}
CONTENT = {"result.npz": b"PK arrays", "bars.svg": b"<svg>&lt;script&gt;</svg>", "bars.png": b"\x89PNG picture"}


def trained(service: Service) -> str:
    job_id = create_job(service.db, small_spec(), owner="local").job_id
    fence = taken(service)
    record_checkpoint(service.db, fence, new_checkpoint(fence, 8), [], resumable=True)
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    return job_id


def posted(client: TestClient, *jobs: str, **fields: Any) -> dict[str, Any]:
    body = {"kind": "average", "checkpoints": [{"job": job_id} for job_id in jobs], **fields}
    answer = client.post("/v1/analyses", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/analyses/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


def concluded(service: Service, folder: Path) -> str:
    """Somebody computes the only analysis; the id of its row."""
    fence = taken(service)
    row = new_checkpoint(fence, 4, "result")
    roles = {"result.npz": "weights"}
    files = {}
    for name, content in CONTENT.items():
        (folder / name).write_bytes(content)
        service.store.put_file(folder / name, f"{row.key}/{name}")
        files[roles.get(name, name)] = {
            "name": name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "bytes": len(content),
        }
    row = replace(row, files=files, sha256=files["weights"]["sha256"], bytes=files["weights"]["bytes"])
    record_checkpoint(service.db, fence, row, [], resumable=False)
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed", None, NUMBERS, {"step": 4, "steps": 4}))
    return fence.job_id


def test_it_echoes_what_was_asked_and_where_it_looks(client: TestClient, service: Service) -> None:
    first, second = trained(service), trained(service)
    found = posted(client, first, second, name="two seeds", metadata={"team": "vision"}, priority=3)
    assert ID.fullmatch(found["id"])
    assert {name: found[name] for name in ("object", "kind", "status", "name", "priority", "seed", "metadata")} == {
        "object": "analysis",
        "kind": "average",
        "status": "queued",
        "name": "two seeds",
        "priority": 3,
        "seed": 0,
        "metadata": {"team": "vision"},
    }
    assert [(each["job"], each["step"], each["kind"]) for each in found["subjects"]] == [
        (first, 8, "last"),
        (second, 8, "last"),
    ]
    assert found["progress"] == {"step": 0, "steps": None, "fraction": 0.0, "eta_seconds": None}
    assert (found["results"], found["pictures"], found["queue"]["position"]) == (None, {}, 1)
    assert isinstance(service.hints, HeardHints)
    assert service.hints.heard[-1] == "any"
    assert client.get(f"/v1/analyses/{found['id']}").json() == found
    assert client.get("/v1/analyses").json()["data"] == [found]
    assert client.get("/v1/analyses", params={"job": first}).json()["data"] == [found]
    assert client.get("/v1/analyses", params={"job": first, "status": "failed"}).json()["data"] == []
    assert {job["id"] for job in client.get("/v1/jobs").json()["data"]} == {first, second}


def test_its_numbers_arrays_and_pictures_can_be_fetched(client: TestClient, service: Service, tmp_path: Path) -> None:
    found = posted(client, trained(service), trained(service))
    own = f"/v1/analyses/{found['id']}"
    for path in (f"{own}/content", f"{own}/pictures/bars.svg"):
        assert client.get(path).status_code == 404
    concluded(service, tmp_path)
    done = client.get(own).json()
    assert (done["status"], done["stop_reason"], done["progress"]["step"]) == ("succeeded", "completed", 4)
    assert done["results"] == {"partial": False, "average": {"val": {"loss": "NaN"}}}
    assert done["pictures"] == {name: f"{own}/pictures/{name}" for name in ("bars.png", "bars.svg")}
    assert client.get("/v1/analyses").json()["data"][0]["results"] is None
    types = {"bars.svg": "image/svg+xml", "bars.png": "image/png"}
    for name, media_type in types.items():
        answer = client.get(done["pictures"][name])
        assert (answer.content, answer.headers["content-type"]) == (CONTENT[name], media_type)
        assert "script-src" not in answer.headers["content-security-policy"]
        policy = answer.headers["content-security-policy"].split("; ")
        # matplotlib's pictures have their styles inside; nothing else of theirs may count.
        assert {"default-src 'none'", "style-src 'unsafe-inline'", "sandbox"} <= set(policy)
        again = client.get(done["pictures"][name], headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    arrays = client.get(done["links"]["content"])
    assert arrays.content == CONTENT["result.npz"]
    assert f"{found['id']}.npz" in arrays.headers["content-disposition"]


@pytest.mark.parametrize("name", ["manifest", "weights", "result.npz", "..%2fbars.svg", "bars.svgx", "none.svg"])
def test_pictures_are_all_that_is_served_under_their_names(
    client: TestClient, service: Service, tmp_path: Path, name: str
) -> None:
    found = posted(client, trained(service), trained(service))
    concluded(service, tmp_path)
    assert client.get(f"/v1/analyses/{found['id']}/pictures/{name}").status_code == 404


def test_verbs_and_deletion_are_those_of_jobs(client: TestClient, service: Service) -> None:
    found = posted(client, trained(service), trained(service))
    own = f"/v1/analyses/{found['id']}"
    for verb, status in (("pause", "paused"), ("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
        answer = client.post(f"{own}/{verb}")
        assert (answer.status_code, answer.json()["status"]) == (202, status)
    refused = client.post(f"{own}/resume")
    assert (refused.status_code, refused.json()["current_status"]) == (409, "cancelled")
    assert client.delete(own).status_code == 204
    assert client.get(own).status_code == 404


def test_it_can_be_watched(client: TestClient, service: Service) -> None:
    found = posted(client, trained(service), trained(service))
    own = f"/v1/analyses/{found['id']}"
    tag = client.get(own).headers["etag"]
    assert client.get(own, headers={"If-None-Match": tag}).status_code == 304
    fence = taken(service)
    record_heartbeat(service.db, fence, lease_seconds=60, progress={"step": 3, "steps": 12, "fraction": 0.25})
    held = client.get(own, headers={"If-None-Match": tag, "Prefer": "wait=20"})
    assert (held.status_code, held.json()["progress"]["fraction"]) == (200, 0.25)
    finish_job(
        service.db,
        fence,
        TerminalState(Status.FAILED, None, {"code": "engine_error", "message": "no", "remedy": "yes"}),
    )
    told = client.get(f"{own}/events").json()["data"]
    assert [event["data"]["status"] for event in told] == ["queued", "running", "failed"]
    with client.stream("GET", f"{own}/events", headers={"Accept": "text/event-stream"}) as stream:
        text = "".join(stream.iter_text())
    assert text.count("event: status") == 3


def test_a_deleted_subject_is_409_while_it_is_needed(client: TestClient, service: Service) -> None:
    first = trained(service)
    found = posted(client, first, trained(service))
    refused = client.delete(f"/v1/jobs/{first}")
    assert (refused.status_code, refused.json()["needed_by"]) == (409, found["id"])
    fence = taken(service)
    assert fence == Fence(found["id"], 1)
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    assert client.delete(f"/v1/jobs/{first}").status_code == 204
    assert client.get(f"/v1/analyses/{found['id']}").json()["subjects"][0]["job"] == first


@pytest.mark.parametrize(
    ("body", "pointer", "hint"),
    [
        ({"kind": "avarage"}, "/kind", 'did you mean "average"?'),
        ({}, "/kind", None),
        ({"kind": 3}, "/kind", None),
        ({"kind": "average", "job": "job_1"}, "/job", None),
        ({"kind": "average", "exmples": 3}, "/exmples", 'did you mean "examples"?'),
        ({"kind": "average", "examples": 0, "checkpoints": []}, "/examples", None),
    ],
)
def test_bad_requests_say_where(light: TestClient, body: dict[str, Any], pointer: str, hint: str | None) -> None:
    answer = light.post("/v1/analyses", json=body)
    assert answer.status_code == 422, answer.text
    problems = {one["pointer"]: one.get("hint") for one in answer.json()["errors"]}
    assert pointer in problems, json.dumps(answer.json())
    assert hint is None or problems[pointer] == hint


def test_one_key_makes_one(client: TestClient, service: Service) -> None:
    jobs = [{"job": trained(service)}, {"job": trained(service)}]
    body, headers = {"kind": "average", "checkpoints": jobs}, {"Idempotency-Key": "k"}
    first, again = (client.post("/v1/analyses", json=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = client.post("/v1/analyses", json=body | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
