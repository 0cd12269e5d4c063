"""A job over HTTP: submitted, read, listed, cancelled; on SQLite and on PostgreSQL."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from api.routes.jobs import EXAMPLE
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.health.workers import SlotUsage, WorkerReport, report_worker
from core.jobs.queue.claim import claim_job
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from tests.api.conftest import service_of
from tests.support.jobs import HeardHints, plan_of, small_spec

IRIS = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "sgd", "lr": 0.1}, "epochs": 2}
ID = re.compile(r"job_[0-7][0-9a-hjkmnp-tv-z]{25}")
TIME = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def posted(client: TestClient, **changes: Any) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json=IRIS | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def taken(service: Service) -> Fence:
    """Some worker claims the only job."""
    found = claim_job(service.db, worker="host:cpu0", needs=("cpu", "any"), plan_for=plan_of, lease_seconds=60)
    assert found is not None
    return Fence(found.job_id, found.attempt)


def test_a_submitted_job_echoes_its_resolved_spec(client: TestClient, service: Service) -> None:
    answer = client.post("/v1/jobs", json=EXAMPLE)
    job = answer.json()
    assert answer.status_code == 201
    assert ID.fullmatch(job["id"])
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["etag"].startswith('W/"')
    assert (job["object"], job["status"], job["attempt"]) == ("job", "queued", 0)
    assert job["optimizer"] == EXAMPLE["optimizer"] | {"dampening": 0.0}  # type: ignore[operator]
    unset = {"cycle": None, "lr_min": None, "swag": None, "update_bn": True}
    assert job["swa"] == {"start": "0.75run", "lr": 0.05, "anneal": "0.05run", "every": "1ep"} | unset
    assert (job["loss"], job["metrics"], job["steps"], job["priority"]) == ("cross_entropy", ["accuracy"], None, 0)
    # 1797 digits, 20 % test and 10 % validation: 1257 or 1258 to train on, 40 batches of 32; 30 epochs.
    assert job["progress"] == {
        "step": 0, "steps": 1200, "epoch": 0, "epochs": 30, "fraction": 0.0, "eta_seconds": None,
    }  # fmt: skip
    assert job["queue"] == {"position": 1, "ahead": 0, "eta_seconds": None}
    assert TIME.fullmatch(job["created_at"])
    assert (job["started_at"], job["finished_at"], job["error"], job["results"]) == (None, None, None, {})
    assert [moment["status"] for moment in job["timeline"]] == ["queued"]
    assert client.get(job["links"]["self"]).json() == job
    assert isinstance(service.hints, HeardHints)
    assert service.hints.heard == ["any"]


def test_a_dry_run_stores_nothing(client: TestClient, service: Service) -> None:
    answer = client.post("/v1/jobs?dry_run=true", json=EXAMPLE, headers={"Idempotency-Key": "k"})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["object"], body["total_steps"], body["steps_per_epoch"]) == ("dry_run", 1200, 40)
    assert body["spec"]["schedule"]["T_max"] == "1160st"  # the run without its warm-up of one epoch
    assert client.get("/v1/jobs").json()["data"] == []
    assert isinstance(service.hints, HeardHints)
    assert service.hints.heard == []
    assert client.post("/v1/jobs", json=IRIS, headers={"Idempotency-Key": "k"}).status_code == 201


def test_a_run_that_only_a_clock_ends(client: TestClient, service: Service) -> None:
    """No number of steps anywhere; what is left is told from the share of the time."""
    spec = IRIS | {"epochs": None, "seconds": 60}
    assert client.post("/v1/jobs?dry_run=true", json=spec).json()["total_steps"] is None
    job = client.post("/v1/jobs", json=spec).json()
    assert (job["progress"]["steps"], job["progress"]["epochs"], job["seconds"]) == (None, None, 60)
    progress = {"step": 99, "steps": None, "epoch": 9, "epochs": None, "fraction": 0.25}
    record_heartbeat(service.db, taken(service), lease_seconds=60, progress=progress)
    shown = client.get(job["links"]["self"]).json()["progress"]
    assert shown["fraction"] == 0.25
    assert shown["eta_seconds"] >= 0
    refused = client.post("/v1/jobs", json=spec | {"schedule": {"name": "cosine"}}).json()
    assert [each["pointer"] for each in refused["errors"]] == ["/schedule/T_max"]


def test_warnings_come_with_the_job(client: TestClient) -> None:
    spec = EXAMPLE | {"schedule": {"name": "cosine", "T_max": "0.7run"}}
    for answer in (client.post("/v1/jobs?dry_run=true", json=spec), client.post("/v1/jobs", json=spec)):
        assert [(w["code"], w["pointer"]) for w in answer.json()["warnings"]] == [
            ("schedule_ends_before_swa", "/schedule")
        ]


def test_a_gpu_job_on_a_service_of_cpus_comes_with_a_warning(client: TestClient) -> None:
    report_worker(service_of(client).db, WorkerReport("here", {"cpu": SlotUsage(2, 2)}))
    on_gpu = IRIS | {"resources": {"device": "gpu"}}
    made = client.post("/v1/jobs", json=on_gpu).json()
    dry = client.post("/v1/jobs?dry_run=true", json=on_gpu).json()
    for answer in (dry, made, client.get(made["links"]["self"]).json()):
        (warning,) = answer["warnings"]
        assert (warning["code"], warning["pointer"]) == ("no_slot", "/resources/device")
        assert warning["message"] == "No worker that reports now has a gpu slot; the job waits until one comes."
    (waiting,) = client.get("/v1/queue").json()["data"]
    assert waiting["reason"]["code"] == "no_slot"
    on_cpu = client.post("/v1/jobs", json=IRIS | {"resources": {"device": "cpu"}}).json()
    assert (on_cpu["warnings"], on_cpu["queue"]["ahead"]) == ([], 0)
    anywhere = client.post("/v1/jobs", json=IRIS).json()
    assert (anywhere["warnings"], anywhere["queue"]["ahead"]) == ([], 1)


def test_a_replay_answers_with_the_first_job(client: TestClient) -> None:
    key = {"Idempotency-Key": "my key 7"}
    first = client.post("/v1/jobs", json=IRIS, headers=key)
    reordered = json.dumps(dict(reversed(IRIS.items())), indent=4)
    same = client.post("/v1/jobs", content=reordered, headers=key | {"Content-Type": "application/json; charset=utf-8"})
    assert (first.status_code, same.status_code) == (201, 200)
    assert first.json()["id"] == same.json()["id"]
    assert first.headers["location"] == same.headers["location"]
    other = client.post("/v1/jobs", json=IRIS | {"epochs": 3}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_fifty_equal_posts_at_once_make_one_job(client: TestClient) -> None:
    def post(_: int) -> tuple[int, str]:
        answer = client.post("/v1/jobs", json=IRIS, headers={"Idempotency-Key": "all at once"})
        return answer.status_code, answer.json()["id"]

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(post, range(50)))
    assert sorted(status for status, _ in answers) == [200] * 49 + [201]
    assert len({job_id for _, job_id in answers}) == 1
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_one_key_for_two_bodies_at_once_makes_one_job(client: TestClient) -> None:
    """Whoever comes first; all the others of its kind get its job, and those of the other kind a refusal."""

    def post(number: int) -> tuple[int, int, str]:
        body = IRIS | {"seed": number % 2}
        answer = client.post("/v1/jobs", json=body, headers={"Idempotency-Key": "two bodies"})
        return number % 2, answer.status_code, answer.json().get("id") or answer.json()["code"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(post, range(16)))
    ((winner, _, job_id),) = [each for each in answers if each[1] == 201]
    assert {each[1:] for each in answers if each[0] == winner} == {(201, job_id), (200, job_id)}
    assert {each[1:] for each in answers if each[0] != winner} == {(422, "idempotency_mismatch")}


def test_the_etag_holds_until_the_job_changes(client: TestClient, service: Service) -> None:
    posted(client, priority=5)  # stands ahead
    path = posted(client)["links"]["self"]
    etag = client.get(path).headers["etag"]
    for value in (etag, etag.removeprefix("W/"), f'"x", {etag}', "*"):
        answer = client.get(path, headers={"If-None-Match": value})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag), value
    assert client.get(path, headers={"If-None-Match": 'W/"other"'}).status_code == 200
    ahead = taken(service)
    answer = client.get(path, headers={"If-None-Match": etag})
    assert answer.status_code == 304, "the queue moved, and the ETag does not cover it"
    assert client.get(path).json()["queue"] == {"position": 1, "ahead": 0, "eta_seconds": None}
    ahead_path = f"/v1/jobs/{ahead.job_id}"
    seen = client.get(ahead_path).headers["etag"]
    record_heartbeat(
        service.db, ahead, lease_seconds=60, progress={"step": 4, "steps": 8, "epoch": 1, "epochs": 2, "fraction": 0.5}
    )
    changed = client.get(ahead_path, headers={"If-None-Match": seen})
    assert (changed.status_code, changed.json()["progress"]["step"]) == (200, 4)
    assert changed.json()["progress"]["eta_seconds"] >= 0
    assert changed.headers["etag"] != seen


def test_a_finished_job_shows_its_results_and_refuses_a_cancel(client: TestClient, service: Service) -> None:
    job = posted(client)
    fence = taken(service)
    results = {"base": {"test": {"loss": float("nan"), "accuracy": 0.75}}}
    progress = {"step": 8, "steps": 8, "epoch": 2, "epochs": 2, "fraction": 1.0, "loss": float("inf")}
    finish_job(service.db, fence, TerminalState(Status.SUCCEEDED, "completed", None, results, progress), [])
    done = client.get(job["links"]["self"]).json()
    assert (done["status"], done["stop_reason"], done["attempt"]) == ("succeeded", "completed", 1)
    assert done["results"] == {"base": {"test": {"loss": "NaN", "accuracy": 0.75}}}
    assert (done["progress"]["loss"], done["progress"]["eta_seconds"]) == ("Infinity", None)
    assert [moment["status"] for moment in done["timeline"]] == ["queued", "running", "succeeded"]
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    refused = client.post(job["links"]["cancel"])
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert refused.json()["current_status"] == "succeeded"


def test_cancels_at_once_are_one(client: TestClient, service: Service) -> None:
    """Of a job that waits and of one that runs: all are accepted, and the job's story tells of it once."""
    running, waiting = posted(client, priority=9), posted(client)
    assert taken(service).job_id == running["id"]
    for job, story in ((running, ["queued", "running", "cancelling"]), (waiting, ["queued", "cancelled"])):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(client.post, [job["links"]["cancel"]] * 16))
        assert [answer.status_code for answer in answers] == [202] * 16
        assert [moment["status"] for moment in client.get(job["links"]["self"]).json()["timeline"]] == story


def test_lists_are_paged_both_ways(client: TestClient) -> None:
    assert client.get("/v1/jobs").json() == {"object": "list", "data": [], "has_more": False, "last_id": None}
    ids = [posted(client, name=f"job {i}")["id"] for i in range(5)]
    newest = client.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in newest["data"]] == ids[:2:-1]
    assert (newest["has_more"], newest["last_id"]) == (True, ids[3])
    rest = client.get("/v1/jobs", params={"after": newest["last_id"], "limit": 3}).json()
    assert [job["id"] for job in rest["data"]] == ids[2::-1]
    assert (rest["has_more"], rest["last_id"]) == (False, ids[0])
    assert [job["id"] for job in client.get("/v1/jobs?order=asc").json()["data"]] == ids


def test_lists_can_be_narrowed_to_a_status(client: TestClient) -> None:
    cancelled, queued = posted(client), posted(client)
    client.post(cancelled["links"]["cancel"])
    for status, job in (("cancelled", cancelled), ("queued", queued)):
        assert [found["id"] for found in client.get(f"/v1/jobs?status={status}").json()["data"]] == [job["id"]]
    assert client.get("/v1/jobs?status=pausing").json()["data"] == []


def test_jobs_of_others_do_not_exist(client: TestClient, service: Service) -> None:
    foreign = create_job(service.db, small_spec(), owner="somebody else").job_id
    assert client.get("/v1/jobs").json()["data"] == []
    for path in ("", "/metrics", "/metrics/names", "/checkpoints"):
        assert client.get(f"/v1/jobs/{foreign}{path}").status_code == 404, path
    assert client.post(f"/v1/jobs/{foreign}/cancel").status_code == 404
    assert client.get(f"/v1/jobs/{foreign}", headers={"If-None-Match": "*"}).status_code == 404


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_the_hint_names_the_slot_that_is_needed(light: TestClient, device: str) -> None:
    answer = light.post("/v1/jobs", json=IRIS | {"resources": {"device": device}})
    app: Any = light.app
    assert (answer.status_code, app.state.service.hints.heard) == (201, [device])
