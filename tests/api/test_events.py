"""Events over real HTTP: a list, a stream that can be taken up again anywhere, and a job that says when it changed."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from api.app import create_app
from api.dependencies import Service
from api.live_poller import StreamPace, parse_prefer_wait
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.events.log import record_events
from core.jobs.metrics.chunks import read_series, record_points
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from tests.api.conftest import settings_for
from tests.api.test_jobs import taken
from tests.support.jobs import HeardHints, chunk, small_spec
from tests.support.service import until

EVENT_STREAM = {"Accept": "text/event-stream"}
Event = dict[str, Any]


@dataclass
class House:
    """An app behind a real server in this process, and what it is made of."""

    url: str
    service: Service
    server: uvicorn.Server

    def unsent(self) -> int:
        """Bytes that wait for readers to take them."""
        held = (protocol.transport for protocol in tuple(self.server.server_state.connections))
        return sum(transport.get_write_buffer_size() for transport in held)

    def job(self) -> Fence:
        """A running job of the owner whom the api serves."""
        job_id = create_job(self.service.db, small_spec(priority=100), owner="local").job_id
        fence = taken(self.service)
        assert fence.job_id == job_id
        return fence

    def path(self, fence: Fence) -> str:
        return f"{self.url}/v1/jobs/{fence.job_id}"

    def say(self, fence: Fence, *lines: str) -> None:
        record_events(self.service.db, fence, "log", [{"level": "info", "message": line} for line in lines])

    def end(self, fence: Fence) -> None:
        finish_job(self.service.db, fence, TerminalState(Status.SUCCEEDED, "completed"), [])


@contextlib.contextmanager
def serving(home: Path, url: str, most: int) -> Iterator[House]:
    app = create_app(settings_for(home, url).model_copy(update={"max_streams": most}))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        until("it serves", lambda: server.started)
        app.state.service = replace(app.state.service, hints=HeardHints())
        yield House(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service, server)
        app.state.service.live.close()
        server.should_exit = True
        thread.join()


@pytest.fixture
def house(tmp_path: Path, database_url: str) -> Iterator[House]:
    """On SQLite and on PostgreSQL."""
    with serving(tmp_path, database_url, most=20) as one:
        yield one


@pytest.fixture
def light(tmp_path: Path, sqlite_url: str) -> Iterator[House]:
    """On SQLite alone, with three places for streams."""
    with serving(tmp_path, sqlite_url, most=3) as one:
        yield one


@contextlib.contextmanager
def stream(url: str, last: str | None = None, **params: str) -> Iterator[Iterator[Event]]:
    """The events of a stream; each gets its SSE id as `cursor`."""
    headers = EVENT_STREAM | ({"Last-Event-ID": last} if last else {})
    with httpx2.stream("GET", f"{url}/events", headers=headers, params=params, timeout=20, trust_env=False) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        sent = (one for one in httpx2.EventSource(answer) if one.data)
        yield (json.loads(one.data) | {"cursor": one.id, "sse_type": one.event} for one in sent)


def get(url: str, **arguments: Any) -> httpx2.Response:
    return httpx2.get(url, timeout=20, trust_env=False, **arguments)


def brief(event: Event) -> str:
    """An event in one word."""
    match event["type"]:
        case "status":
            return str(event["data"]["status"])
        case "log":
            return str(event["data"]["message"])
        case "progress":
            return f"at {event['data']['step']}"
        case "metrics":
            return " ".join(f"{name}+{len(one['steps'])}" for name, one in event["data"]["series"].items())
    return str(event["type"])


def test_a_stream_tells_what_happens_while_it_happens(house: House) -> None:
    fence = house.job()
    with stream(house.path(fence)) as events:
        assert [brief(next(events)) for _ in range(2)] == ["queued", "running"]
        house.say(fence, "hello")
        assert brief(next(events)) == "hello"
        record_points(house.service.db, fence, [chunk("train.loss", 0, 3)])
        metrics = next(events)
        assert metrics["data"]["series"]["train.loss"] == {
            "offset": 0,
            "steps": [0, 1, 2],
            "values": [0.0, 0.5, 1.0],
            "times": ["1970-01-01T00:16:40.000Z", "1970-01-01T00:16:41.000Z", "1970-01-01T00:16:42.000Z"],
        }
        record_points(house.service.db, fence, [chunk("train.loss", 0, 5)])
        assert next(events)["data"]["series"]["train.loss"]["steps"] == [3, 4]
        record_heartbeat(house.service.db, fence, lease_seconds=9, progress={"step": 5, "steps": 12})
        assert next(events)["data"] == {"step": 5, "steps": 12}
        record_points(house.service.db, fence, [chunk("train.loss", 0, 6)])
        house.end(fence)
        rest = list(events)
    assert {brief(one) for one in rest[:-1]} == {"train.loss+1"}
    assert (rest[-1]["type"], rest[-1]["data"]["status"]) == ("status", "succeeded")
    assert rest[-1].keys() == {"id", "object", "type", "attempt", "at", "data", "cursor", "sse_type"}


def test_a_stream_can_be_taken_up_behind_any_event(house: House) -> None:
    """Also when the connection was killed: what came before is not told again, what follows is not left out."""
    fence = house.job()
    house.say(fence, "one", "two")
    record_points(house.service.db, fence, [chunk("lr", 0, 3), chunk("val.loss", 0, 1)])
    seen: list[Event] = []
    with stream(house.path(fence)) as events:
        seen += [next(events) for _ in range(3)]
    until("the killed stream is forgotten", lambda: house.service.live.open_count == 0)
    house.say(fence, "three")
    record_points(house.service.db, fence, [chunk("lr", 0, 8)])
    house.end(fence)
    while seen[-1]["data"].get("status") != "succeeded":
        with stream(house.path(fence), last=seen[-1]["cursor"]) as events:
            seen.append(next(events))  # one, and then the connection is gone
    told = [brief(event) for event in seen]
    assert told == ["queued", "running", "one", "two", "three", "lr+8 val.loss+1", "succeeded"]
    again = get(f"{house.path(fence)}/events", headers=EVENT_STREAM | {"Last-Event-ID": seen[-1]["cursor"]})
    assert (again.status_code, again.content) == (204, b"")


def test_a_job_that_has_ended_tells_its_story(house: House) -> None:
    fence = house.job()
    record_points(house.service.db, fence, [chunk("lr", 0, 1000), chunk("lr", 1000, 7, number=1)])
    house.say(fence, "only line")
    house.end(fence)
    with stream(house.path(fence)) as events:
        found = list(events)
    assert [brief(one) for one in found] == ["queued", "running", "only line", "lr+1007", "succeeded"]
    (metrics,) = [one["data"]["series"]["lr"] for one in found if one["type"] == "metrics"]
    assert metrics["values"] == list(read_series(house.service.db, fence.job_id)["lr"].values)
    with stream(house.path(fence), types="log,status", after=found[1]["cursor"]) as events:
        assert [brief(one) for one in events] == ["only line", "succeeded"]


def test_many_readers_share_one_poller(light: House) -> None:
    """Two who came at different times hear the same, in the same order, and no thread is started for them."""
    fence = light.job()
    with stream(light.path(fence)) as first:
        assert [brief(next(first)) for _ in range(2)] == ["queued", "running"]
        threads = threading.active_count()
        light.say(fence, "one")
        assert brief(next(first)) == "one"
        with stream(light.path(fence)) as second, stream(light.path(fence), types="log") as third:
            assert [brief(next(second)) for _ in range(3)] == ["queued", "running", "one"]
            light.say(fence, "two")
            assert [brief(next(first)), brief(next(second))] == ["two", "two"]
            assert threading.active_count() <= threads + 3  # of the pool for short requests; none stays with a stream
            light.end(fence)
            assert [brief(one) for one in first] == [brief(one) for one in second] == ["succeeded"]
            assert [brief(one) for one in third] == ["one", "two"]


def test_the_list_has_pages(house: House) -> None:
    fence = house.job()
    house.say(fence, *"abcde")
    url = f"{house.path(fence)}/events"
    first = get(url, params={"limit": 3}).json()
    assert [brief(one) for one in first["data"]] == ["queued", "running", "a"]
    assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, first["data"][-1]["id"])
    rest = get(url, params={"after": first["last_id"], "limit": 4}).json()
    assert ([brief(one) for one in rest["data"]], rest["has_more"]) == (list("bcde"), False)
    assert [brief(one) for one in get(url, params={"types": "log"}).json()["data"]] == list("abcde")
    assert get(url, params={"types": "progress"}).json()["data"] == []


def test_what_is_refused(light: House) -> None:
    fence = light.job()
    url = f"{light.path(fence)}/events"
    for last in ("nonsense", "-1", "1;2;3;4", "9" * 40, "1;;1;" + "a:1," * 9000 + "b:1"):
        answer = get(url, headers=EVENT_STREAM | {"Last-Event-ID": last})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/header/Last-Event-ID")
    for params in ({"after": "x"}, {"types": "gossip"}, {"limit": "0"}, {"limit": "1001"}, {"sort": "asc"}):
        assert get(url, params=params).status_code == 422
    theirs = create_job(light.service.db, small_spec(), owner="somebody else").job_id
    for job_id in (theirs, "job_01hzzzzzzzzzzzzzzzzzzzzzzz", "x"):
        for headers in ({}, EVENT_STREAM):
            assert get(f"{light.url}/v1/jobs/{job_id}/events", headers=headers).status_code == 404
        assert get(f"{light.url}/v1/jobs/{job_id}", headers={"Prefer": "wait=30"}).status_code == 404
    assert httpx2.head(url, headers=EVENT_STREAM, timeout=20, trust_env=False).status_code == 200


def test_an_owner_has_so_many_streams_and_no_more(light: House) -> None:
    fence = light.job()
    with contextlib.ExitStack() as held:
        for _ in range(3):
            next(held.enter_context(stream(light.path(fence))))
        refused = get(f"{light.path(fence)}/events", headers=EVENT_STREAM)
        assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
        assert refused.headers["retry-after"] == "2"
        unheld = get(light.path(fence), headers={"Prefer": "wait=30"})  # answered at once, and not held
        assert (unheld.status_code, "preference-applied" in unheld.headers) == (200, False)
    until("their places are free again", lambda: light.service.live.open_count == 0)
    with stream(light.path(fence)) as events:
        assert brief(next(events)) == "queued"


def meanwhile(change: Callable[[], None], light: House) -> threading.Thread:
    """Do it as soon as somebody waits."""

    def work() -> None:
        until("somebody waits", lambda: light.service.live.open_count)
        change()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_wait_ends_with_a_change(house: House) -> None:
    fence = house.job()
    etag = get(house.path(fence)).headers["etag"]
    thread = meanwhile(lambda: house.end(fence), house)
    began = time.monotonic()
    changed = get(house.path(fence), headers={"Prefer": "respond-async, wait=15", "If-None-Match": etag})
    assert time.monotonic() - began < 15
    thread.join()
    assert (changed.status_code, changed.json()["status"]) == (200, "succeeded")
    assert changed.headers["preference-applied"] == "wait=15"
    ended = get(house.path(fence), headers={"Prefer": "wait=60"})  # nothing will change: answered at once
    assert (ended.status_code, ended.headers["preference-applied"]) == (200, "wait=60")


def test_a_wait_ends_without_a_change(light: House) -> None:
    fence = light.job()
    etag = get(light.path(fence)).headers["etag"]
    same = get(light.path(fence), headers={"Prefer": "wait=1", "If-None-Match": etag})
    assert (same.status_code, same.headers["preference-applied"]) == (304, "wait=1")
    stale = get(light.path(fence), headers={"Prefer": "wait=60", "If-None-Match": 'W/"0"'})  # it has changed already
    assert (stale.status_code, stale.headers["preference-applied"]) == (200, "wait=60")


def test_what_a_client_may_prefer() -> None:
    asked = ["wait=30", 'x, Wait = "5" ; y', "wait=1000000", "wait=0", "wait", "await=3", "wait=-1", "", None]
    assert [parse_prefer_wait(one) for one in asked] == [30, 5, 60, None, None, None, None, None, None]


def test_an_idle_stream_is_pinged(light: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(light.service.live, "pace", StreamPace(ping_seconds=0.05))
    fence = light.job()
    with httpx2.stream("GET", f"{light.path(fence)}/events", headers=EVENT_STREAM, trust_env=False) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 1000"
        assert next(line for line in lines if line.startswith(":")) == ": ping"
        assert answer.headers["cache-control"] == "no-store"


@contextlib.contextmanager
def deaf(light: House, fence: Fence) -> Iterator[None]:
    """A reader that asks for a stream and takes nothing of it; its place is taken when the block begins."""
    host, _, port = light.url.removeprefix("http://").partition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        request = f"GET /v1/jobs/{fence.job_id}/events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n"
        connection.sendall(request.encode())
        until("it is served", lambda: light.service.live.open_count == 1)
        yield


def test_a_reader_that_takes_nothing_is_dropped(light: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free again, and meanwhile nobody else is kept waiting."""
    monkeypatch.setattr(light.service.live, "pace", StreamPace(slow_seconds=0.2))
    fence = light.job()
    with deaf(light, fence), stream(light.path(fence), types="log") as other:
        for number in range(100):
            light.say(fence, *(f"{number} {'x' * 40_000}" for _ in range(25)))
            assert next(other)["data"]["message"].startswith(f"{number} ")
            if light.service.live.open_count == 1:
                break
            for _ in range(24):
                next(other)
        until("the deaf one is dropped", lambda: light.service.live.open_count == 1, 10)


def test_a_reader_that_takes_nothing_fills_no_memory(light: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is dropped, one look at most is kept for it, however much is said: here ten looks of a megabyte."""
    monkeypatch.setattr(light.service.live, "pace", StreamPace(slow_seconds=120.0))
    fence = light.job()
    most = 0
    with deaf(light, fence), stream(light.path(fence), types="log") as other:
        for number in range(10):
            light.say(fence, *(f"{number} {'x' * 40_000}" for _ in range(25)))
            for _ in range(25):
                assert next(other)["data"]["message"].startswith(f"{number} ")
            most = max(most, light.unsent())
        assert light.service.live.open_count == 2
    assert 0 < most < 3_000_000


def test_a_deleted_job_and_a_stop_end_its_streams(light: House) -> None:
    fence, other = light.job(), light.job()
    with stream(light.path(fence)) as events, stream(light.path(other)) as others:
        assert [brief(next(events)) for _ in range(2)] == ["queued", "running"]
        assert [brief(next(others)) for _ in range(2)] == ["queued", "running"]
        with light.service.db.write() as connection:
            connection.exec_driver_sql("DELETE FROM job WHERE id = ?", (fence.job_id,))
        assert list(events) == []
        light.service.live.close()
        assert list(others) == []
