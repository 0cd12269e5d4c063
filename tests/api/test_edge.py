"""What every answer has in common, whatever happened inside."""

import asyncio
import logging
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from starlette.types import Message

from api.app import create_app
from api.errors import STATUS
from api.middleware import HEADERS
from api.routes import health
from core.errors import BasinError
from tests.api.conftest import service_of, settings_for, started


class SecretError(Exception):
    """An error whose text must not leave the house."""


def broken(client: TestClient, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let every read of the database raise `error`."""

    def read() -> None:
        raise error

    database = type(service_of(client).db)
    monkeypatch.setattr(database, "read", lambda _self: read())


def test_a_request_id_is_made_or_taken_over(shared: TestClient) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", shared.get("/healthz").headers["x-request-id"])
    assert shared.get("/healthz", headers={"X-Request-ID": "run-7.a_B"}).headers["x-request-id"] == "run-7.a_B"
    for bad in (b"a b", b"a" * 129, b"a\tb", b"\xc3\xa9", b""):
        answer = shared.get("/healthz", headers=[(b"X-Request-ID", bad)])
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


def test_a_problem_quotes_the_request_id(shared: TestClient) -> None:
    answer = shared.get("/nowhere", headers={"X-Request-ID": "mine"})
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:basin:problem:not_found",
        "title": "Not Found",
        "status": 404,
        "detail": "There is nothing at this path; /openapi.json lists all paths.",
        "code": "not_found",
        "errors": [],
        "request_id": "mine",
    }


def test_unknown_methods_are_told_the_known_ones(shared: TestClient) -> None:
    answer = shared.put("/v1/jobs")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, POST"
    assert answer.json()["code"] == "method_not_allowed"
    assert shared.request("BREW", "/v1/jobs").status_code == 405


def test_head_is_get_without_the_body(shared: TestClient) -> None:
    for path in ("/v1/jobs", "/v1/catalog", "/healthz", "/docs", "/openapi.json", "/nowhere"):
        get, head = shared.get(path), shared.head(path)
        assert head.status_code == get.status_code, path
        assert head.content == b"", path
        assert head.headers["content-length"] == str(len(get.content)) if path != "/nowhere" else True
        assert head.headers["content-type"] == get.headers["content-type"], path


def test_a_trailing_slash_is_another_path(shared: TestClient) -> None:
    """A redirect would be built from the Host header."""
    assert shared.get("/v1/jobs/", follow_redirects=False).status_code == 404


def test_every_answer_carries_the_protective_headers(shared: TestClient) -> None:
    for path in ("/v1/jobs", "/nowhere", "/healthz", "/"):
        headers = shared.get(path).headers
        assert [name for name in HEADERS if name not in headers] == [], path


def test_the_unforeseen_is_logged_and_not_told(
    shared: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(shared, monkeypatch, SecretError("postgresql://user:hunter2@db"))
    with caplog.at_level(logging.ERROR, "basin.api"):
        answer = shared.get("/v1/jobs", headers={"X-Request-ID": "oops"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal_error"
    assert "oops" in answer.json()["detail"]
    assert "hunter2" not in answer.text
    assert "Secret" not in answer.text
    assert caplog.records[0].exc_info is not None


def test_a_database_that_is_away_is_said_so(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    broken(shared, monkeypatch, OperationalError("SELECT hunter2", {}, ConnectionRefusedError("db:5432")))
    answer = shared.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert "5432" not in answer.text
    assert "hunter2" not in answer.text
    ready = shared.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert ready.json()["checks"]["database"] == {"ok": False, "required": True, "detail": "away"}
    assert shared.get("/healthz").status_code == 200


def test_the_table_knows_every_kind_of_error() -> None:
    def tree(cls: type[BasinError]) -> set[type[BasinError]]:
        return {cls}.union(*(tree(sub) for sub in cls.__subclasses__()))

    assert {error.kind for error in tree(BasinError)} <= set(STATUS)


def test_readiness_names_what_is_missing(shared: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a broker jobs run all the same, found by polling: degraded, and ready."""
    answer = shared.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert {name for name, check in answer.json()["checks"].items() if not check["ok"]} == {"broker", "reconciler"}
    assert answer.json()["degraded"] == ["broker", "reconciler"]
    service_of(shared).reconciler.tick()
    monkeypatch.setattr(health, "broker_answers", lambda _url: True)
    assert shared.get("/readyz").json()["status"] == "ready"


def test_a_body_that_never_arrives_is_given_up(tmp_path: Path, sqlite_url: str) -> None:
    settings = settings_for(tmp_path, sqlite_url).model_copy(update={"body_seconds": 0.05})
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", "query_string": b"", "headers": headers}

    async def call(client: TestClient) -> None:
        await client.app(scope, receive, send)

    for hasty in started(create_app(settings)):
        asyncio.run(call(hasty))
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
