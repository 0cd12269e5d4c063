"""Finding, changing and deleting jobs over HTTP; the fleet and the queue."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.dependencies import Service
from core.db.session import Database
from core.db.tables import event, job
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import WHOLE_RUN, record_heartbeat
from core.jobs.events.cursor import Cursor
from core.jobs.events.feed import FeedQuery, read_feed
from core.jobs.health.workers import SlotState, SlotUsage, WorkerReport, report_worker
from core.lifecycle import Status
from tests.api.test_guard import JOB
from tests.api.test_jobs import IRIS, posted, taken


def ids(client: TestClient, query: str) -> list[str]:
    answer = client.get(f"/v1/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["data"]]


def test_jobs_are_found(client: TestClient) -> None:
    blue = posted(client, name="Blue", metadata={"team": "vision", "a b[c]": "ü&="})["id"]
    red = posted(client, name="red", metadata={"team": "vision"})["id"]
    client.post(f"/v1/jobs/{red}/cancel")
    assert ids(client, "metadata[team]=vision") == [red, blue]
    assert ids(client, "metadata%5Bteam%5D=vision&status=cancelled") == [red]
    assert ids(client, "status=cancelled&status=queued&order=asc") == [blue, red]
    assert client.get("/v1/jobs", params={"metadata[a b[c]]": "ü&="}).json()["data"][0]["id"] == blue
    assert ids(client, "q=blu&metadata[team]=vision") == [blue]
    assert ids(client, f"q={red[4:20]}") == ids(client, f"q={red}")
    assert ids(client, "metadata[team]=vision&limit=1") == [red]
    assert ids(client, f"metadata[team]=vision&limit=1&after={red}") == [blue]


def test_a_job_is_changed(client: TestClient) -> None:
    job = posted(client, name="old", metadata={"team": "a", "draft": "yes"})
    own = job["links"]["self"]
    tag = client.get(own).headers["etag"]
    body = {"name": "new", "priority": 7, "metadata": {"team": "b", "draft": None}}
    answer = client.patch(own, json=body, headers={"If-Match": tag})
    changed = answer.json()
    assert (answer.status_code, answer.headers["etag"] != tag) == (200, True)
    assert (changed["name"], changed["priority"], changed["metadata"]) == ("new", 7, {"team": "b"})
    kept = {name: value for name, value in changed.items() if name not in body}
    assert kept == {name: value for name, value in job.items() if name not in body}
    assert client.get(own).json() == changed
    assert client.patch(own, json={}).json() == changed


def test_a_stale_or_strange_condition_is_refused(client: TestClient) -> None:
    """Also on top of changes that somebody else made meanwhile; nothing is changed then."""
    own = posted(client, name="old")["links"]["self"]
    tag = client.get(own).headers["etag"]
    client.patch(own, json={"name": "newer"})
    for stale in (tag, '"0"', "nonsense", ""):
        answer = client.patch(own, json={"name": "mine"}, headers={"If-Match": stale})
        assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed"), stale
    assert client.get(own).json()["name"] == "newer"
    fresh = client.get(own).headers["etag"]
    assert client.patch(own, json={"name": "mine"}, headers={"If-Match": f'"x", {fresh}'}).status_code == 200
    assert client.patch(own, json={"name": "any"}, headers={"If-Match": "*"}).status_code == 200
    assert client.patch(f"/v1/jobs/{JOB}", json={"name": "any"}, headers={"If-Match": "*"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"status": "succeeded"}, "/status"),
        ({"owner": "root"}, "/owner"),
        ({"epochs": 5}, "/epochs"),
        ({"priority": 101}, "/priority"),
        ({"priority": True}, "/priority"),
        ({"priority": None}, "/priority"),
        ({"name": ""}, "/name"),
        ({"name": "a\u202eb"}, "/name"),
        ({"metadata": None}, "/metadata"),
        ({"metadata": {"k": 1}}, "/metadata/k"),
        ({"metadata": {"": "v"}}, "/metadata/"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "/metadata"),
    ],
)
def test_what_cannot_be_changed(light: TestClient, body: dict[str, Any], pointer: str) -> None:
    own = posted(light, name="old")["links"]["self"]
    before = light.get(own).json()
    answer = light.patch(own, json={"name": "half"} | body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert light.get(own).json() == before


def test_a_job_that_ended_is_deleted(client: TestClient) -> None:
    job = posted(client)
    own = job["links"]["self"]
    refused = client.delete(own)
    assert (refused.status_code, refused.json()["current_status"]) == (409, "queued")
    client.post(f"{own}/cancel")
    late = client.patch(own, json={"priority": 1})
    assert (late.status_code, late.json()["current_status"]) == (409, "cancelled")
    gone = client.delete(own)
    assert (gone.status_code, gone.content) == (204, b"")
    for path in ("", "/metrics", "/metrics/names", "/checkpoints"):
        assert client.get(own + path).status_code == 404
    assert client.delete(own).status_code == 404
    assert client.get("/v1/jobs").json()["data"] == []


def test_the_promise_of_a_deleted_job_is_not_broken(light: TestClient) -> None:
    """A repeated post must not train again what somebody has deleted on purpose."""
    headers = {"Idempotency-Key": "k"}
    own = light.post("/v1/jobs", json=IRIS, headers=headers).json()["links"]["self"]
    light.post(f"{own}/cancel")
    light.delete(own)
    again = light.post("/v1/jobs", json=IRIS, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    assert light.get("/v1/jobs").json()["data"] == []


def test_the_queue_says_why_and_the_fleet_who(client: TestClient, service: Service) -> None:
    assert client.get("/v1/queue").json() == {"object": "queue", "waiting": 0, "slots": {}, "data": []}
    job = posted(client, name="first", resources={"device": "gpu"})
    told = client.get("/v1/queue").json()
    assert told["data"] == [
        {
            "id": job["id"], "name": "first", "priority": 0, "needs": "gpu", "position": 1, "ahead": 0,
            "reason": {"code": "no_worker", "message": "No worker is there; start one with `basin worker`."},
            "eta_seconds": None, "created_at": job["created_at"],
        }
    ]  # fmt: skip
    report_worker(service.db, WorkerReport("host-1", {"cpu": SlotUsage(2, 2)}))
    told = client.get("/v1/queue").json()
    assert (told["waiting"], told["slots"]) == (1, {"cpu": {"slots": 2, "free": 2}})
    assert told["data"][0]["reason"]["code"] == "no_slot"
    (worker,) = client.get("/v1/workers").json()["data"]
    assert (worker["id"], worker["status"], worker["slots"]) == ("host-1", "live", {"cpu": {"slots": 2, "free": 2}})
    assert worker["devices"] == []
    assert client.get("/v1/queue?limit=101").status_code == 422


def test_a_worker_shows_its_gpus(client: TestClient, service: Service) -> None:
    """A CPU slot out of service is no GPU; it is missing in `slots`."""
    well = SlotState("gpu", "GPU-a", in_service=True, since=1.5, name="H", memory_bytes=80 << 30)
    ill = SlotState("gpu", "GPU-b", in_service=False, since=0.0, reason="timeout", detail="no answer in 90 s")
    hangs = SlotState("cpu", "", in_service=False, since=0.0, reason="unkillable")
    report_worker(
        service.db, WorkerReport("host-1", {"cpu": SlotUsage(0, 0), "gpu": SlotUsage(1, 0)}, (well, ill, hangs))
    )
    (worker,) = client.get("/v1/workers").json()["data"]
    assert worker["slots"] == {"cpu": {"slots": 0, "free": 0}, "gpu": {"slots": 1, "free": 0}}
    assert worker["devices"] == [
        {
            "device": "GPU-a", "name": "H", "memory_bytes": 80 << 30, "status": "in_service",
            "reason": None, "detail": None, "since": "1970-01-01T00:00:01.500Z",
        },
        {
            "device": "GPU-b", "name": None, "memory_bytes": None, "status": "out_of_service",
            "reason": "timeout", "detail": "no answer in 90 s", "since": "1970-01-01T00:00:00.000Z",
        },
    ]  # fmt: skip


def ran_for(db: Database, job_id: str, seconds: float) -> None:
    """Let the one run of this job have begun so long before it ended."""
    with db.write() as connection:
        connection.execute(update(job).where(job.c.id == job_id).values(started_at=100.0, finished_at=100.0 + seconds))
        at = update(event).where(event.c.job_id == job_id, event.c.type == "status")
        ids = connection.execute(at.values(at=100.0 + seconds).returning(event.c.id)).scalars().all()
        connection.execute(update(event).where(event.c.id == sorted(ids)[1]).values(at=100.0))


def test_what_is_left_goes_by_the_rate_and_not_by_the_start(client: TestClient, service: Service) -> None:
    """The worker says that the whole run takes 80 s: from a quarter on it takes 60, however long ago the claim was. How
    that is known is nothing that readers see.
    """
    path = posted(client)["links"]["self"]
    fence = taken(service)
    progress = {"step": 2, "steps": 8, "epoch": 0, "epochs": 2, "fraction": 0.25}
    record_heartbeat(service.db, fence, lease_seconds=60, progress=progress | {WHOLE_RUN: 80.0})
    assert client.get(path).json()["progress"] == progress | {"eta_seconds": 60.0}
    (found,) = read_feed(service.db, fence.job_id, [FeedQuery(fence.job_id, Cursor(), frozenset({"progress"}))]) or ()
    assert [item.data for item in found.items] == [progress]


def test_a_waiting_job_says_when_it_starts_and_ends(client: TestClient, service: Service) -> None:
    """Runs take 30 s. The one slot is busy, half through its run: 15 s; then 30 s for each job before. One that was
    given back halfway, after 8 s, needs only 8 s more when its turn comes.
    """
    done = posted(client)
    finish_job(service.db, taken(service), TerminalState(Status.SUCCEEDED, "completed"), [])
    ran_for(service.db, done["id"], 30.0)
    back, fresh = posted(client, priority=5), posted(client)
    record_heartbeat(
        service.db, fence := taken(service), lease_seconds=60, progress={"step": 4, "steps": 8, "fraction": 0.5}
    )
    give_back(service.db, fence, cause="stop", lost=False, max_losses=3)
    ran_for(service.db, back["id"], 8.0)
    tags = [client.get(one["links"]["self"]).headers["etag"] for one in (back, fresh)]
    report_worker(service.db, WorkerReport("host-1", {"cpu": SlotUsage(1, 0)}))
    told = [client.get(one["links"]["self"]).json() for one in (back, fresh)]
    assert [one["queue"]["eta_seconds"] for one in told] == [15.0, 45.0]
    assert [one["progress"]["eta_seconds"] for one in told] == [23.0, 75.0]
    assert [one["eta_seconds"] for one in client.get("/v1/queue").json()["data"]] == [15.0, 45.0]
    assert client.get("/v1/jobs").json()["data"] == [*told[::-1], client.get(done["links"]["self"]).json()]
    for one, tag in zip(told, tags, strict=True):
        answer = client.get(one["links"]["self"], headers={"If-None-Match": tag})
        assert answer.status_code == 304, "the guess has changed, and the ETag does not cover it"
    client.post(fresh["links"]["cancel"])
    assert client.get(fresh["links"]["self"]).json()["progress"]["eta_seconds"] is None
