"""Events in the client: once each, whatever happens to the connection; and commands that live on them."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from basin import events, progress
from basin.client import Client
from basin.errors import BadAnswer, Problem, Unreachable
from tests.sdk.conftest import JOB_ID, Said, job
from tests.sdk.stub import Answer, Asked, Stub
from tests.support.service import until

Basin = Callable[..., Said]
ONE = f"/v1/jobs/{JOB_ID}"
EVENTS = f"{ONE}/events"
AT = "2026-11-23T13:00:00Z"
STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}


def frame(number: int, kind: str, **data: Any) -> bytes:
    body = {
        "id": str(number),
        "object": "event",
        "type": kind,
        "attempt": 1,
        "at": "2026-11-23T13:00:00Z",
        "data": data,
    }
    return f"event: {kind}\ndata: {json.dumps(body)}\nid: {number};;1;lr:{number}\n\n".encode()


def sent(*frames: bytes, cut: int | None = None) -> Answer:
    return Answer(200, b"retry: 1000\n\n: ping\n\n" + b"".join(frames), STREAM, cut)


RESULTS = {"swa": {"test": {"accuracy": 0.98}}}
LINES = [frame(n, "log", level="info", message=f"line {n}") for n in range(1, 6)]
END = frame(6, "status", status="succeeded", detail="completed")


def test_each_event_comes_once(client: Client, stub: Stub) -> None:
    """The first connection breaks inside an event, the second ends early, the third is refused for a moment."""
    first = sent(*LINES[:3])
    broken = Answer(200, first.body, STREAM, cut=len(first.body) - 40)
    away = Answer(503, {"code": "unavailable", "detail": "Away."})
    stub.on("GET", EVENTS, broken, sent(LINES[2], LINES[3]), away, sent(LINES[4], END))
    found = list(client.events(JOB_ID, types=("log", "status")))
    assert [event.id for event in found] == ["1", "2", "3", "4", "5", "6"]
    assert (found[0].type, found[0].data["message"], found[0].attempt) == ("log", "line 1", 1)
    asked = stub.requests("GET", EVENTS)
    assert [one.headers.get("last-event-id") for one in asked] == [None, "2;;1;lr:2", "4;;1;lr:4", "4;;1;lr:4"]
    assert {one.headers["accept"] for one in asked} == {"text/event-stream"}
    assert asked[0].query == {"types": "log,status"}


def test_a_job_without_anything_left_ends_at_once(client: Client, stub: Stub) -> None:
    stub.on("GET", EVENTS, Answer(204, b""))
    assert list(client.events(JOB_ID, after="9;;1;lr:9")) == []
    assert stub.asked[0].headers["last-event-id"] == "9;;1;lr:9"


def test_what_cannot_be_healed_is_raised(client: Client, stub: Stub) -> None:
    for answer, error in (
        (Answer(429, {"code": "quota_exceeded", "detail": "Too many."}), Problem),
        (Answer(200, {"object": "list"}, {"Content-Type": "application/json"}), BadAnswer),
        (sent(b"event: log\ndata: nonsense\n\n"), BadAnswer),
        (sent(b"event: log\ndata: {}\n\n"), BadAnswer),
    ):
        stub.on("GET", EVENTS, answer)
        with pytest.raises(error):
            list(client.events(JOB_ID))
    stub.on("GET", EVENTS, sent())
    with pytest.raises(Unreachable):
        list(client.events(JOB_ID, patience=0.3))


def test_a_silent_stream_is_left(client: Client, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stub promises more bytes than it sends and keeps the connection."""
    monkeypatch.setattr(events, "SILENCE", 0.2)
    silent = Answer(200, LINES[0], STREAM | {"Content-Length": "9999"})
    stub.on("GET", EVENTS, silent, sent(LINES[1], END))
    assert [event.id for event in client.events(JOB_ID)] == ["1", "2", "6"]


def test_past_events_come_page_by_page(client: Client, stub: Stub) -> None:
    def page(asked: Asked) -> Answer:
        after = int(asked.query.get("after", 0))
        data = [{"id": str(n), "type": "log", "attempt": 1, "data": {}} for n in range(after + 1, after + 3)]
        return Answer(200, {"data": data, "has_more": after < 4, "last_id": data[-1]["id"]})

    stub.on("GET", EVENTS, page)
    assert [event.id for event in client.past_events(JOB_ID, types=("log",))] == ["1", "2", "3", "4", "5", "6"]
    assert [one.query.get("after") for one in stub.asked] == [None, "2", "4"]


def test_a_wait_is_held_by_the_service(client: Client, stub: Stub) -> None:
    """One that knows how is not polled: it is asked again when it has answered."""
    applied = {"Preference-Applied": "wait=15", "ETag": 'W/"2"'}
    first = Answer(200, job("running"), {"ETag": 'W/"1"'})
    stub.on("GET", ONE, first, Answer(304, None, applied), Answer(200, job("failed")))
    assert client.wait(JOB_ID, timeout=600).status == "failed"
    assert [one.headers.get("prefer") for one in stub.asked] == [None, "wait=15", "wait=15"]


def test_watching_lives_on_the_stream(client: Client, stub: Stub) -> None:
    """What the job object knew already is not told again, and the job itself is read once more at the end alone."""
    past = [{"status": one, "at": AT, "detail": None} for one in ("queued", "running")]
    known = [frame(1, "status", status="queued"), frame(2, "status", status="running")]
    stepped = frame(2, "progress", step=5, epoch=1, epochs=3, loss=0.5)
    again = [frame(3, "status", status="queued", detail="lost"), frame(4, "status", status="running")]
    stub.on("GET", ONE, Answer(200, job("running", timeline=past)), Answer(200, job("succeeded", results=RESULTS)))
    stub.on("GET", EVENTS, sent(*known, stepped, *again), sent(END))
    seen = list(progress.job_changes(client, client.get(JOB_ID)))
    told = [(one.status, one.progress.step, one.status_detail) for one in seen]
    assert told == [("running", 5, None), ("queued", 5, "lost"), ("running", 5, None), ("succeeded", 0, None)]
    assert (seen[0].progress.epochs, seen[0].name, seen[-1].results) == (3, "digits", RESULTS)
    assert len(stub.requests("GET", ONE)) == 2
    assert stub.requests("GET", EVENTS)[0].query == {"types": "status,progress"}


def test_watch_polls_where_the_stream_is_broken(basin: Basin, stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "RETRY_SECONDS", 0.3)
    stub.on("GET", EVENTS, Answer(200, b"", STREAM, cut=-1))
    stub.on("GET", ONE, *(Answer(200, job(status)) for status in ("queued", "queued", "running", "cancelled")))
    said = basin("watch", JOB_ID)
    assert said.code == 1
    assert [line.split()[1] for line in said.out.splitlines()[1:]] == ["queued", "running", "cancelled"]


PAST = {
    "data": [{"id": "1", "type": "log", "at": "2026-11-23T13:00:00Z", "data": {"level": "info", "message": "a\nb"}}]
}


def test_logs_are_lines(basin: Basin, stub: Stub) -> None:
    death = {"code": "attempt_lost", "message": "SIGKILL\x1b[2J", "stderr": "last\nwords"}
    warned = {"id": "2", "type": "warning", "at": "2026-11-23T13:00:01Z", "data": death}
    stub.on("GET", ONE, Answer(200, job("running")))
    stub.on("GET", EVENTS, Answer(200, {"data": [*PAST["data"], warned], "has_more": False}))
    said = basin("logs", JOB_ID)
    assert said.code == 0
    assert said.out.splitlines() == [
        "2026-11-23 13:00:00  info     a",
        "    b",
        "2026-11-23 13:00:01  warning  SIGKILL\N{REPLACEMENT CHARACTER}[2J",
        "    last",
        "    words",
    ]
    assert stub.requests("GET", EVENTS)[0].query["types"] == "log,warning"
    as_json = basin("logs", JOB_ID, "-o", "json")
    assert [json.loads(line)["id"] for line in as_json.out.splitlines()] == ["1", "2"]
    stub.on("GET", ONE, Answer(404, {"code": "not_found", "detail": "There is none."}))
    assert basin("logs", JOB_ID).code == 1


@pytest.mark.parametrize("follows", [(), ("-f",)])
def test_logs_of_a_job_that_failed_end_with_why(basin: Basin, stub: Stub, follows: tuple[str, ...]) -> None:
    """Also where it said nothing at all."""
    error = {"code": "bad_data", "message": "no such column\x1b[2J\nof 3", "remedy": "Change the data."}
    failed = job("failed", error=error, finished_at="2026-11-23T13:00:02Z", attempt=2)
    stub.on("GET", ONE, Answer(200, failed))
    stub.on("GET", EVENTS, Answer(204, b"") if follows else Answer(200, {"data": [], "has_more": False}))
    said = basin("logs", JOB_ID, *follows)
    assert said.code == 0
    assert said.out.splitlines() == [
        "2026-11-23 13:00:02  failed   bad_data: no such column\N{REPLACEMENT CHARACTER}[2J",
        "    of 3",
        "    Change the data.",
    ]
    (line,) = basin("logs", JOB_ID, *follows, "-o", "json").out.splitlines()
    assert json.loads(line) == {"type": "error", "attempt": 2, "at": failed["finished_at"], "data": error}


def test_logs_follow_the_stream_and_then_the_list(basin: Basin, stub: Stub) -> None:
    """The service streams two lines and then refuses: the rest is polled from where the stream broke off."""

    def listed(asked: Asked) -> Answer:
        if asked.headers["accept"] == "text/event-stream":
            return Answer(429, {"code": "quota_exceeded", "detail": "Too many."})
        assert asked.query["after"] == "2;;1;lr:2"
        data = [{"id": "3", "type": "log", "data": {"level": "info", "message": "line 3"}}]
        return Answer(200, {"data": data, "has_more": False})

    stub.on("GET", EVENTS, sent(*LINES[:2]), listed)
    stub.on("GET", ONE, Answer(200, job("running")), Answer(200, job("succeeded")))
    said = basin("logs", JOB_ID, "-f")
    assert said.code == 0
    assert [line.partition("info")[2].strip() for line in said.out.splitlines()] == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize("command", [("watch",), ("logs", "-f")])
def test_ctrl_c_while_streaming_leaves_the_job_running(stub: Stub, command: tuple[str, ...]) -> None:
    stub.on("GET", ONE, Answer(200, job("running")))
    stub.on("GET", EVENTS, Answer(200, LINES[0], STREAM | {"Content-Length": "9999"}))
    watching = subprocess.Popen(
        [sys.executable, "-m", "basin", *command, JOB_ID, "--url", stub.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        until("it follows the stream", lambda: stub.requests("GET", EVENTS))
        time.sleep(0.2)  # for the first event to be read
    finally:
        watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=30)
    assert watching.returncode == 130
    assert f"{JOB_ID} continues." in err
    assert {asked.method for asked in stub.asked} == {"GET"}
