"""Finding, changing and deleting jobs, the fleet and the queue, by client and by command."""

import json
import re
from collections.abc import Callable

import pytest

from basin.actions import choose_checkpoint
from basin.client import Client
from basin.errors import Problem
from tests.sdk.conftest import JOB_ID, Said, job
from tests.sdk.stub import Answer, Stub

Basin = Callable[..., Said]
ONE = f"/v1/jobs/{JOB_ID}"
EMPTY = {"object": "list", "data": [], "has_more": False, "last_id": None}
WORKER = {
    "id": "host-1", "status": "live", "host": "h", "pid": 7, "release": "0.1.0", "jobs": [JOB_ID],
    "slots": {"gpu": {"slots": 1, "free": 0}, "cpu": {"slots": 2, "free": 1}},
}  # fmt: skip
WAITING = {
    "id": JOB_ID, "name": "n", "position": 3, "reason": {"code": "slots_busy", "message": "All 2 slots are busy."},
    "eta_seconds": 150.0,
}  # fmt: skip


def test_a_list_can_be_narrowed(basin: Basin, stub: Stub) -> None:
    stub.on("GET", "/v1/jobs", Answer(body=EMPTY))
    said = basin("list", "--status", "failed", "--metadata", "team=a=b", "--metadata", "run=", "--q", "net")
    assert (said.code, said.out) == (0, "No such jobs.\n")
    assert stub.asked[0].query == {"status": "failed", "metadata[team]": "a=b", "q": "net", "limit": "20"}
    assert basin("list").out.startswith("No jobs yet.")
    wrong = basin("list", "--metadata", "team")
    assert (wrong.code, wrong.err) == (1, "error: 'team' is no pair; write KEY=VALUE\n")


def test_statuses_are_repeated(client: Client, stub: Stub) -> None:
    asked: list[str] = []
    stub.on("GET", "/v1/jobs", Answer(body=EMPTY))
    client._transport.http.event_hooks["request"] = [lambda request: asked.append(request.url.query.decode())]
    client.list(status=["failed", "cancelled"])
    assert asked == ["status=failed&status=cancelled"]


def test_a_job_is_edited(basin: Basin, stub: Stub) -> None:
    stub.on("PATCH", ONE, Answer(body=job("queued", name="new")))
    said = basin("edit", JOB_ID, "--name", "new", "--priority", "-3", "--metadata", "team=a", "--metadata", "draft=")
    assert (said.code, said.out) == (0, f"{JOB_ID}  queued  new\n")
    assert stub.asked[0].body == {"name": "new", "priority": -3, "metadata": {"team": "a", "draft": None}}
    assert basin("edit", JOB_ID).err == "error: say what to change: --name, --priority, --metadata\n"


def test_a_stale_edit_is_a_problem(client: Client, stub: Stub) -> None:
    stub.on("PATCH", ONE, Answer(412, {"status": 412, "title": "Precondition Failed", "code": "precondition_failed"}))
    with pytest.raises(Problem) as refused:
        client.edit(JOB_ID, {"name": "x"}, if_match='W/"3"')
    assert refused.value.status == 412
    assert stub.asked[0].headers["if-match"] == 'W/"3"'


def test_a_retry_is_another_job(basin: Basin, stub: Stub) -> None:
    stub.on("POST", f"{ONE}/retry", Answer(201, job("queued", id="job_2")))
    said = basin("retry", JOB_ID, "--again")
    assert (said.code, said.out.splitlines()[0]) == (0, "job_2  queued")
    assert stub.asked[0].body == {"again": True}
    assert len(stub.asked[0].headers["idempotency-key"]) == 36


def test_a_fork_changes_options_and_whole_fields(basin: Basin, stub: Stub) -> None:
    """Of a field that is changed in part the parent's rest is sent along; the others are as they were given."""
    parent = {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9}, "schedule": {"name": "cosine"}}
    stub.on("GET", ONE, Answer(200, job("succeeded", **parent)))
    stub.on("POST", f"{ONE}/fork", Answer(201, job("queued", id="job_2")))
    said = basin("fork", JOB_ID, "--at", "40", "--set", "optimizer.lr=0.01", "--set", "schedule={name: constant}")
    assert (said.code, said.out.splitlines()[0]) == (0, "job_2  queued")
    changes = {"optimizer": {"name": "sgd", "lr": 0.01, "momentum": 0.9}, "schedule": {"name": "constant"}}
    assert stub.asked[1].body == {"at": 40, "changes": changes}
    basin("fork", JOB_ID, "--at", "ckpt_1")
    assert stub.asked[3].body == {"at": "ckpt_1", "changes": {}}


def test_jobs_are_deleted_one_by_one(basin: Basin, stub: Stub) -> None:
    refusal = {"status": 409, "title": "Conflict", "code": "conflict", "detail": "The job is running."}
    stub.on("DELETE", ONE, Answer(409, refusal))
    stub.on("DELETE", "/v1/jobs/job_b", Answer(204, b""))
    said = basin("delete", JOB_ID, "job_b")
    assert (said.code, said.out) == (1, "job_b  deleted\n")
    assert "The job is running. (409 conflict)" in said.err


def test_checkpoints_are_pinned_one_by_one(basin: Basin, stub: Stub) -> None:
    kept = {"id": "ckpt_a", "kind": "last", "step": 40, "pinned": True}
    refusal = {"status": 409, "title": "Conflict", "code": "conflict", "detail": "The checkpoint is being removed."}
    stub.on("POST", "/v1/checkpoints/ckpt_a/pin", Answer(body=kept))
    stub.on("POST", "/v1/checkpoints/ckpt_b/pin", Answer(409, refusal))
    said = basin("pin", "ckpt_b", "ckpt_a")
    assert (said.code, said.out) == (1, "ckpt_a  pinned  (last weights of step 40)\n")
    assert "ckpt_b:\nerror: The checkpoint is being removed. (409 conflict)" in said.err
    assert json.loads(basin("pin", "ckpt_a", "-o", "json").out) == [kept]
    stub.on("DELETE", "/v1/checkpoints/ckpt_a/pin", Answer(204, b""))
    said = basin("unpin", "ckpt_b", "ckpt_a")
    assert (said.code, said.out) == (1, "ckpt_a  unpinned\n")
    assert "ckpt_b:\nerror: There is none." in said.err


def test_what_only_a_pin_keeps_is_not_what_is_downloaded(client: Client, stub: Stub) -> None:
    old = {"id": "ckpt_a", "kind": "last", "step": 40, "pinned": True, "superseded": True}
    stub.on("GET", f"{ONE}/checkpoints", Answer(body={"data": [{"id": "ckpt_b", "kind": "last", "step": 30}, old]}))
    assert choose_checkpoint(client.checkpoints(JOB_ID), None, JOB_ID).id == "ckpt_b"


def test_events_are_a_line_each(basin: Basin, stub: Stub) -> None:
    at = "2026-11-23T13:00:00.000Z"
    told = [
        ("status", {"status": "running", "detail": "attempt 1 on a:cpu0"}),
        ("checkpoint", {"id": "ckpt_1", "step": 40, "kind": "last"}),
        ("warning", {"code": "remedy", "message": "out of memory\nagain"}),
        ("log", {"level": "info", "message": "hello"}),
    ]
    data = [
        {"id": str(n), "type": type_, "attempt": 1, "at": at, "data": one} for n, (type_, one) in enumerate(told, 1)
    ]
    stub.on("GET", ONE, Answer(body=job("running")))
    stub.on("GET", f"{ONE}/events", Answer(body={"data": data, "has_more": False}))
    said = basin("events", JOB_ID, "--types", "status,warning")
    assert [line.removeprefix("2026-11-23 13:00:00    1  ") for line in said.out.splitlines()] == [
        "status      running  attempt 1 on a:cpu0",
        "checkpoint  last of step 40  ckpt_1",
        "warning     remedy: out of memory",
        "log         hello",
    ]
    assert stub.requests("GET", f"{ONE}/events")[0].query["types"] == "status,warning"
    documents = [json.loads(line) for line in basin("events", JOB_ID, "-o", "json").out.splitlines()]
    assert [one["data"] for one in documents] == [one["data"] for one in data]


def test_the_fleet(basin: Basin, stub: Stub) -> None:
    stub.on("GET", "/v1/workers", Answer(body=EMPTY | {"data": [WORKER]}), Answer(body=EMPTY))
    lines = basin("workers").out.splitlines()
    assert lines[1].split() == ["host-1", "live", "1/2", "cpu,", "1/1", "gpu", "-", "0.1.0", JOB_ID]
    assert basin("workers").out == "No workers. Start one:  basin worker\n"
    stub.on("GET", "/v1/workers", Answer(body=EMPTY | {"data": [WORKER]}))
    assert json.loads(basin("workers", "-o", "json").out) == [WORKER]


def test_the_gpus_of_the_fleet(basin: Basin, stub: Stub) -> None:
    since = "2026-11-23T13:00:00.000Z"
    well = {"device": "GPU-a", "name": "H", "memory_bytes": 80_000_000_000, "status": "in_service", "since": since}
    ill = {"device": "GPU-b", "status": "out_of_service", "reason": "timeout", "detail": "no answer", "since": since}
    stub.on("GET", "/v1/workers", Answer(body=EMPTY | {"data": [WORKER | {"devices": [well, ill]}]}))
    _, _, head, first, second = (re.split(r"  +", line.strip()) for line in basin("workers").out.splitlines())
    assert head == ["worker", "gpu", "name", "memory", "status", "since", "why"]
    assert first[:5] == ["host-1", "GPU-a", "H", "80 GB", "in service"]
    assert second[:5] == ["host-1", "GPU-b", "-", "-", "out of service"]
    assert second[6] == "timeout: no answer"


def test_the_queue(basin: Basin, stub: Stub) -> None:
    told = {"object": "queue", "waiting": 5, "slots": {}, "data": [WAITING]}
    stub.on("GET", "/v1/queue", Answer(body=told), Answer(body=told | {"waiting": 0, "data": []}))
    lines = basin("queue").out.splitlines()
    assert lines[1].split(maxsplit=4) == ["3", JOB_ID, "2", "min", "All 2 slots are busy."]
    assert lines[2] == "and 4 more"
    assert basin("queue").out == "None of your jobs is queued.\n"
