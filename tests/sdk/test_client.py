"""The client over a real socket: retries, polling, downloads, and what it makes of odd answers."""

import hashlib
import math
import socket
from pathlib import Path

import pytest

from basin.client import Client
from basin.errors import BadAnswer, DigestMismatch, Problem, Unreachable
from basin.shapes import Checkpoint
from tests.sdk.conftest import JOB_ID, job
from tests.sdk.stub import Answer, Asked, Stub, serving

WEIGHTS = bytes(range(256)) * 20_000
SHA = hashlib.sha256(WEIGHTS).hexdigest()
CONTENT = "/v1/checkpoints/ckpt_1/content"
UNAVAILABLE = Answer(503, {"title": "Service Unavailable", "code": "unavailable"}, {"Retry-After": "0"})


def test_a_submit_whose_answer_is_lost_is_sent_again_under_the_same_key(stub: Stub, client: Client) -> None:
    """Without the key a broken connection would leave the choice between no job and two."""
    stub.on("POST", "/v1/jobs", Answer(cut=-1), UNAVAILABLE, Answer(201, job("queued")))
    assert client.submit({"epochs": 3}).id == JOB_ID
    keys = {asked.headers["idempotency-key"] for asked in stub.requests("POST", "/v1/jobs")}
    assert len(stub.asked) == 3
    assert len(keys) == 1
    assert [asked.body for asked in stub.asked] == [{"epochs": 3}] * 3


def test_two_submits_are_two_jobs_unless_the_caller_says_otherwise(stub: Stub, client: Client) -> None:
    stub.on("POST", "/v1/jobs", Answer(201, job("queued")))
    client.submit({})
    client.submit({})
    client.submit({}, idempotency_key="mine")
    first, second, third = (asked.headers["idempotency-key"] for asked in stub.asked)
    assert first != second
    assert third == "mine"


def test_projects_are_listed_and_made(stub: Stub, client: Client) -> None:
    default = {"object": "project", "name": "default", "created_at": "2026-11-30T17:00:00.000Z", "created_by": "local"}
    stub.on("GET", "/v1/projects", Answer(200, {"object": "list", "data": [default], "has_more": False}))
    stub.on("POST", "/v1/projects", Answer(201, default | {"name": "vision"}))
    (found,) = client.projects()
    assert (found.name, found.created_by, found.created_at and found.created_at.year) == ("default", "local", 2026)
    assert client.create_project("vision").name == "vision"
    assert stub.requests("POST", "/v1/projects")[0].body == {"name": "vision"}


def test_a_refusal_is_a_problem_and_is_not_sent_again(stub: Stub, client: Client) -> None:
    errors = [{"pointer": "/optimizer/lr", "message": "must be greater than 0", "hint": None}, "nonsense"]
    stub.on(
        "POST", "/v1/jobs", Answer(422, {"title": "No", "detail": "Wrong.", "code": "invalid_spec", "errors": errors})
    )
    with pytest.raises(Problem, match=r"Wrong\.") as raised:
        client.submit({})
    assert (raised.value.status, raised.value.code) == (422, "invalid_spec")
    assert [(one.pointer, one.message) for one in raised.value.fields] == [("/optimizer/lr", "must be greater than 0")]
    assert len(stub.asked) == 1


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            {
                "code": "invalid_spec",
                "detail": "Two fields are wrong.",
                "errors": [
                    {"pointer": "/optimizer/lr", "message": "must be greater than 0", "hint": "as in 0.1"},
                    {"pointer": "", "message": "give epochs or steps", "hint": None},
                ],
            },
            """invalid_spec: Two fields are wrong.
  /optimizer/lr: must be greater than 0 (as in 0.1)
  (the whole body): give epochs or steps""",
        ),
        ({"code": "not_found", "title": "Not Found"}, "not_found: Not Found"),
        ({}, "HTTP 422"),
    ],
)
def test_a_problem_as_text_is_all_that_the_service_said(
    stub: Stub, client: Client, body: dict[str, object], text: str
) -> None:
    stub.on("POST", "/v1/jobs", Answer(422, body))
    with pytest.raises(Problem) as raised:
        client.submit({})
    assert str(raised.value) == text


@pytest.mark.parametrize("noun", ["jobs", "analyses"])
def test_a_list_is_gone_through_page_by_page(stub: Stub, client: Client, noun: str) -> None:
    """All that there is, asked for as it is wanted; with a limit so many."""
    ids = [f"{'an' if noun == 'analyses' else 'job'}_{number}" for number in range(5)]

    def paged(asked: Asked) -> Answer:
        start = ids.index(asked.query["after"]) + 1 if "after" in asked.query else 0
        shown = ids[start : start + int(asked.query.get("limit", 2))]
        data = [job() | {"id": each, "kind": "average"} for each in shown]
        return Answer(200, {"data": data, "has_more": shown[-1] != ids[-1], "last_id": shown[-1]})

    stub.on("GET", f"/v1/{noun}", paged)
    listed = client.list if noun == "jobs" else client.analyses
    page = listed(status="running")
    assert ([one.id for one in page.data], page.has_more, page.last_id) == (ids[:2], True, ids[1])
    assert len(stub.asked) == 1
    found = iter(page)
    assert [next(found).id for _ in range(2)] == ids[:2]
    assert len(stub.asked) == 1
    assert [one.id for one in found] == ids[2:]
    assert [asked.query for asked in stub.asked] == [
        {"status": "running"},
        {"status": "running", "after": ids[1]},
        {"status": "running", "after": ids[3]},
    ]
    assert [one.id for one in listed(limit=3)] == ids[:3]
    assert [one.id for one in listed(limit=3, after=ids[2])] == ids[3:]


@pytest.mark.parametrize("body", [b"<html>hello</html>", b"[]", b'"text"', b"", b"\xff"])
def test_an_answer_of_something_else_is_said_to_be_one(stub: Stub, client: Client, body: bytes) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, body))
    with pytest.raises(BadAnswer):
        client.get(JOB_ID)


@pytest.mark.parametrize("body", [{}, {"id": 3, "status": "queued"}, job(progress="half")])
def test_an_object_that_is_no_job_is_not_taken_for_one(stub: Stub, client: Client, body: object) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, body))
    with pytest.raises(BadAnswer, match="unexpected job"):
        client.get(JOB_ID)


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable, match="refused"):
        client.get(JOB_ID)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://127.0.0.1", "http://[", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_unreachable(url: str) -> None:
    with pytest.raises(Unreachable), Client(url) as client:
        client.get(JOB_ID)


def test_fields_that_this_client_does_not_know_are_kept(stub: Stub, client: Client) -> None:
    body = job("running", progress={"loss": "NaN", "lr": 0.1, "news": 1}, optimizer={"name": "sgd"})
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, body))
    found = client.get(JOB_ID)
    assert found.raw() == body
    assert found.progress.loss is not None
    assert math.isnan(found.progress.loss)
    assert (found.model_extra or {})["optimizer"] == {"name": "sgd"}


def test_ids_stay_inside_their_path(stub: Stub, client: Client) -> None:
    with pytest.raises(Problem):
        client.get("../checkpoints?x=1")
    assert [asked.path for asked in stub.asked] == ["/v1/jobs/../checkpoints?x=1"]  # as unquoted by the stub
    assert stub.asked[0].query == {}


def test_the_key_goes_to_the_service_and_not_where_it_redirects(stub: Stub, tmp_path: Path) -> None:
    with serving() as store, Client(stub.url, key="basin_secret") as client:
        store.on("GET", "/bucket/object", Answer(200, WEIGHTS))
        elsewhere = store.url.replace("127.0.0.1", "localhost")
        stub.on("GET", CONTENT, Answer(307, {}, {"Location": f"{elsewhere}/bucket/object?signature=x"}))
        client.download(Checkpoint(id="ckpt_1", kind="swa", sha256=SHA), tmp_path / "weights")
        assert stub.asked[0].headers["authorization"] == "Bearer basin_secret"
        assert "authorization" not in store.asked[0].headers
    assert (tmp_path / "weights").read_bytes() == WEIGHTS


def test_a_proxy_has_no_say_about_this_machine(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    stub.on("GET", "/healthz", Answer(200, {"status": "alive"}))
    with Client(stub.url) as client:
        assert client.alive()


def test_changes_come_once_each_and_end_with_the_job(stub: Stub, client: Client) -> None:
    def third(asked: Asked) -> Answer:
        assert asked.headers["if-none-match"] == '"1"'
        return Answer(304)

    first = Answer(200, job("queued"), {"ETag": '"1"'})
    last = Answer(200, job("succeeded"), {"ETag": '"2"'})
    stub.on("GET", f"/v1/jobs/{JOB_ID}", first, third, Answer(cut=-1), UNAVAILABLE, third, last)
    assert [one.status for one in client.changes(JOB_ID, poll=0.0)] == ["queued", "succeeded"]
    assert len(stub.asked) == 6


def test_changes_live_through_a_restart_but_not_for_ever(stub: Stub, client: Client) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, job("running")), Answer(cut=-1))
    seen = client.changes(JOB_ID, poll=0.0, patience=0.0)
    assert next(seen).status == "running"
    with pytest.raises(Unreachable):
        next(seen)
    stub.on("GET", f"/v1/jobs/{JOB_ID}", *[Answer(cut=-1)] * 9, Answer(200, job("failed")))
    assert [one.status for one in client.changes(JOB_ID, poll=0.0)] == ["failed"]


def test_wait_gives_up_on_waiting_and_not_on_the_job(stub: Stub, client: Client) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, job("running")), Answer(200, job("cancelled")))
    assert client.wait(JOB_ID, poll=0.0).status == "cancelled"
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(200, job("running")))
    with pytest.raises(TimeoutError, match="still running"):
        client.wait(JOB_ID, timeout=0.0, poll=0.0)
    assert {asked.method for asked in stub.asked} == {"GET"}


def test_metrics_and_checkpoints(stub: Stub, client: Client) -> None:
    series = {"lr": {"steps": [0, 1], "values": [0.1, "Infinity"], "times": ["2026-11-23T13:00:00Z"] * 2}}
    stub.on("GET", f"/v1/jobs/{JOB_ID}/metrics", Answer(200, {"job": JOB_ID, "series": series}))
    stub.on(
        "GET", f"/v1/jobs/{JOB_ID}/checkpoints", Answer(200, {"data": [{"id": "ckpt_1", "kind": "last", "step": 7}]})
    )
    assert client.metrics(JOB_ID, ["lr", "val.loss"], max_points=2)["lr"].values == (0.1, math.inf)
    assert stub.asked[0].query == {"series": "lr,val.loss", "max_points": "2"}
    assert [(one.id, one.step) for one in client.checkpoints(JOB_ID)] == [("ckpt_1", 7)]


def ranges(asked: Asked) -> Answer:
    """The rest of the weights, from where the client was cut off."""
    assert asked.headers["if-range"] == '"abc"'
    start = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert 0 < start < len(WEIGHTS)
    return Answer(206, WEIGHTS[start:], {"ETag": '"abc"'})


def test_a_download_that_breaks_off_goes_on_where_it_broke(stub: Stub, client: Client, tmp_path: Path) -> None:
    broken = Answer(200, WEIGHTS, {"ETag": '"abc"'}, cut=3_000_000)
    stub.on("GET", CONTENT, Answer(cut=-1), broken, ranges)
    target = tmp_path / "new folder" / "weights.safetensors"
    assert client.download(Checkpoint(id="ckpt_1", kind="swa", sha256=SHA), target) == target
    assert target.read_bytes() == WEIGHTS
    assert [path.name for path in target.parent.iterdir()] == ["weights.safetensors"]


def test_a_download_starts_over_when_the_content_changed(stub: Stub, client: Client, tmp_path: Path) -> None:
    stub.on("GET", CONTENT, Answer(200, b"x" * 2_000_000, {"ETag": '"old"'}, cut=1_500_000), Answer(200, WEIGHTS))
    client.download(Checkpoint(id="ckpt_1", kind="swa", sha256=SHA), tmp_path / "weights")
    assert (tmp_path / "weights").read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(200, WEIGHTS[:-1] + b"?"), DigestMismatch),
        (Answer(404, {"code": "not_found"}), Problem),
        (Answer(200, WEIGHTS, cut=10), Unreachable),
    ],
)
def test_a_download_that_fails_leaves_the_old_file(
    stub: Stub, client: Client, tmp_path: Path, answer: Answer, error: type[Exception]
) -> None:
    stub.on("GET", CONTENT, answer)
    (tmp_path / "weights").write_bytes(b"old")
    with pytest.raises(error):
        client.download(Checkpoint(id="ckpt_1", kind="swa", sha256=SHA), tmp_path / "weights")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("weights", b"old")]
