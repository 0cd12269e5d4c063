"""The process: it says what is wrong in one line, survives rude clients, and stops when told."""

import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import pytest
import typer

from api.commands import api
from api.middleware import MAX_BODY
from tests.support.broker import Broker
from tests.support.service import Service, until

POST = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """One api, without worker and broker, for the tests of this file that leave it whole."""
    home = tmp_path_factory.mktemp("server")
    (home / "basin.db").write_bytes(sqlite_template.read_bytes())
    service = Service(home, f"sqlite:///{home / 'basin.db'}", None)
    try:
        service.start_api()
        yield service
    finally:
        service.stop()


def port_of(service: Service) -> int:
    port = service.http.base_url.port
    assert port is not None
    return port


def exchange(port: int, request: bytes, patience: float = 10.0) -> bytes:
    """Everything that comes back for these very bytes, until the connection is closed."""
    with socket.create_connection(("127.0.0.1", port), patience) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65_536):
                answer += piece
    return answer


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """What `basin api` prints when it does not start."""
    monkeypatch.setenv("BASIN_HOME", str(tmp_path))

    def start(host: str | None = None, port: int | None = None, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(typer.Exit) as caught:
            api(host, port)
        assert caught.value.exit_code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return start


def test_a_taken_port_is_said_in_one_line(refused: Callable[..., str], running: Service) -> None:
    line = refused(port=port_of(running), BASIN_DATABASE_URL=running.database_url)
    assert line.startswith(f"basin api: cannot listen on 127.0.0.1:{port_of(running)} (")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3"])  # noqa: S104 - that is the point
def test_an_address_that_others_reach_needs_a_key(refused: Callable[..., str], sqlite_url: str, host: str) -> None:
    assert "not a loopback address" in refused(BASIN_HOST=host, BASIN_DATABASE_URL=sqlite_url)
    assert "not a loopback address" in refused(host=host, BASIN_HOST="127.0.0.1")


def test_settings_that_make_no_sense_are_named(refused: Callable[..., str]) -> None:
    assert refused(BASIN_PORT="eighty").startswith("basin api: setting port: ")
    line = refused(BASIN_PORT="0", BASIN_DATABASE_URL="mysql://root:hunter2@db/x")
    assert "mysql" in line
    assert "hunter2" not in line
    assert "store_url" in refused(BASIN_DATABASE_URL="", BASIN_STORE_URL="gopher://x")


def test_a_database_without_tables_is_said_to_be_one(refused: Callable[..., str]) -> None:
    assert refused(port=0).endswith("run `basin migrate`")


def test_a_large_body_is_refused_before_it_is_read(running: Service) -> None:
    """The client sees the 413, not a reset connection, though it was still sending."""
    for _ in range(3):
        answer = running.http.post("/v1/jobs", content=b" " * 12_000_000, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert answer.headers["connection"] == "close"


def test_a_large_body_without_a_length_is_refused(running: Service) -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b" " * 65_536 for _ in range(200))

    answer = running.http.post("/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("length", [b"Content-Length: 99999999", b"Transfer-Encoding: chunked"])
def test_a_large_body_is_refused_as_soon_as_it_is_known_to_be_one(running: Service, length: bytes) -> None:
    """Nothing is read of one that says its size, 64 KiB too much of one that does not; then the connection ends."""
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    body = chunk * (MAX_BODY // 65_536 + 1) if b"chunked" in length else b""
    with socket.create_connection(("127.0.0.1", port_of(running)), 10) as connection:
        connection.sendall(POST + length + b"\r\n\r\n" + body)
        answer = b""
        while piece := connection.recv(65_536):  # until it is closed, though we never said that we were done
            answer += piece
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close\r\n" in answer


def test_nobody_forges_a_line_of_the_log(running: Service) -> None:
    """Whatever stands in a request, each line of the log is one JSON object, in signs that a terminal can bear."""
    http = running.http
    nasty = '\r\n{"event": "forged"}\x1b[31m\u2028\u202e\x9b'
    job = {"model": {"name": nasty}, "name": nasty, nasty: 1}
    headers = {"Content-Type": "application/json"}
    for answer in (
        http.get(f"/v1/jobs/{quote(nasty)}"),
        http.get("/v1/jobs", params={"q": nasty, nasty: nasty}),
        http.post("/v1/jobs", json=job),
        http.post("/v1/jobs", content=f"[{nasty}".encode(), headers=headers | {"X-Request-ID": quote(nasty)}),
        http.put("/v1/jobs", headers={"X-Request-ID": "\x1b[31m"}),
    ):
        assert 400 <= answer.status_code < 500
    assert running.api is not None
    said = running.api.said
    assert [line for line in said.splitlines() if not isinstance(json.loads(line), dict)] == []
    assert said.isascii()
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f]", said)


def test_a_client_that_asks_first_does_not_send_a_large_body(running: Service) -> None:
    head = POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
    answer = exchange(port_of(running), head)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


RUDE = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\xff\r\n\r\n",
    "no host": b"GET /v1/jobs HTTP/1.1\r\nConnection: close\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /v1/jobs HTTP/1.0\r\n\r\n",
    "two hosts": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "absolute target": b"GET http://evil.example/v1/jobs HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    "bytes in the path": b"GET /v1/jobs/\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "NUL in the path": b"GET /v1/jobs/%00 HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    "newline in a header": b"GET /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\nb\r\nConnection: close\r\n\r\n",
    "negative length": POST + b"Content-Length: -5\r\n\r\n",
    "two lengths": POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a websocket": b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n",
    "thousands of headers": b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"Connection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", RUDE)
def test_rude_requests_are_refused_and_forgotten(running: Service, name: str) -> None:
    answer = exchange(port_of(running), RUDE[name])
    status = answer[9:12] if answer else b"none"
    assert status in {b"400", b"403", b"404", b"431", b"none"}, answer[:200]
    assert running.http.get("/v1/jobs").status_code == 200


def test_a_client_that_leaves_early_harms_nobody(running: Service) -> None:
    head = (
        b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"
    )
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", port_of(running)), 5) as connection:
            connection.sendall(head)
    assert running.http.get("/v1/jobs").status_code == 200
    assert running.api is not None
    assert "Traceback" not in running.api.said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_when_told(
    serve: Callable[[str, Broker | None], Service], sqlite_url: str, number: signal.Signals
) -> None:
    """With exit code 0, though a client holds a connection and another is in the middle of a request."""
    service = serve(sqlite_url, None)
    part = service.start_api()
    service.http.get("/v1/jobs")
    half = POST + b"Content-Length: 9\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port_of(service)), 5) as connection:
        connection.sendall(half)
        time.sleep(0.1)
        part.signal(number)
        until("the process ends", lambda: part.exit_code is not None, 10)
    assert part.exit_code == 0
    assert "Traceback" not in part.said


def test_streams_and_waits_end_when_it_stops(
    serve: Callable[[str, Broker | None], Service], sqlite_url: str, datasets: Callable[[str], object]
) -> None:
    """At once, and as an answer that is complete: readers come again, and nothing is said to have gone wrong."""
    service = serve(sqlite_url, None)
    part = service.start_api()
    spec = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 2}
    path = f"/v1/jobs/{service.submit(spec)}"
    with service.http.stream("GET", f"{path}/events", headers={"Accept": "text/event-stream"}) as answer:
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith("event:")) == "event: status"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(service.http.get, path, headers={"Prefer": "wait=60"})
            time.sleep(0.3)
            part.signal(signal.SIGTERM)
            assert waiting.result().status_code == 200
        assert not any(line.startswith("event:") for line in lines)
    until("the process ends", lambda: part.exit_code is not None, 10)
    assert part.exit_code == 0
    assert "Traceback" not in part.said
    assert "Cancel" not in part.said


def test_it_starts_while_the_database_is_away(serve: Callable[[str, Broker | None], Service]) -> None:
    """The api starts without its database, says 503 and which part is away; no password shows anywhere."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        gone = nobody.getsockname()[1]
    service = serve(f"postgresql://u:hunter2@127.0.0.1:{gone}/x", None)
    part = service.start_api()
    answer = service.http.get("/v1/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "2"
    ready = service.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]["ok"]) == (503, False)
    assert "hunter2" not in part.said + answer.text + ready.text
