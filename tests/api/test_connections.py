"""What a connection may do before there is a request: so long, so much, and so many of them. A real process."""

import json
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from api.http_protocol import MOST_HEAD, MOST_HEADERS
from api.unfinished_requests import MOST_IN_ALL, MOST_OF_PEER
from core.settings import Settings
from tests.api.test_jobs import IRIS
from tests.support.service import Service, until

HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
HALF = HEAD + b"X-Part: y"
PROXY = "127.0.0.3"
ANSWERED = b"HTTP/1.1 200 OK\r\n"


@contextmanager
def api_with(home: Path, template: Path, **environment: str) -> Iterator[Service]:
    (home / "basin.db").write_bytes(template.read_bytes())
    service = Service(home, f"sqlite:///{home / 'basin.db'}", None)
    service.environment |= {f"BASIN_{name}": value for name, value in environment.items()}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1000), hard))  # as it is elsewhere
    try:
        service.start_api()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        yield service
    finally:
        service.stop()


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """An api that waits for headers as long as ever."""
    with api_with(tmp_path_factory.mktemp("patient"), sqlite_template, TRUSTED_PROXIES=f"10.0.0.0/8, {PROXY}") as api:
        yield api


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Service]:
    """One that waits for half a second."""
    with api_with(tmp_path_factory.mktemp("hasty"), sqlite_template, HEADER_SECONDS="0.5") as api:
        yield api


def connected(service: Service, source: str = "127.0.0.1") -> socket.socket:
    port = service.http.base_url.port
    assert port is not None
    return socket.create_connection(("127.0.0.1", port), 10, (source, 0))


def rest(connection: socket.socket) -> bytes:
    """What comes until the other side has closed."""
    answer = b""
    with suppress(ConnectionError):
        while piece := connection.recv(65_536):
            answer += piece
    return answer


def whole_answer(connection: socket.socket) -> bytes:
    """The health of a service, whose body may come in a piece of its own."""
    answer = b""
    while not answer.endswith(b"}"):
        answer += connection.recv(65_536)
    return answer


def exchange(service: Service, *pieces: bytes) -> bytes:
    with connected(service) as connection:
        with suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
        return rest(connection)


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of one problem that closes its connection, in the shape of every other."""
    head, _, body = answer.partition(b"\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    problem: dict[str, Any] = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert headers["connection"] == "close"
    assert headers["x-request-id"] == problem["request_id"]
    assert headers["x-content-type-options"] == "nosniff"
    assert int(headers["content-length"]) == len(body)
    assert int(head[9:12]) == problem["status"]
    return problem["status"], problem["code"]


def memory(service: Service) -> int:
    assert service.api is not None
    return int(psutil.Process(service.api.pid).memory_info().rss)


def is_open(connection: socket.socket) -> bool:
    """Whether nothing has come, no end either."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def padded(size: int) -> bytes:
    """A head of so many bytes."""
    start = HEAD + b"Connection: close\r\nX: "
    return start + b"y" * (size - len(start) - 4) + b"\r\n\r\n"


def test_a_head_is_as_large_as_it_may_be_and_no_larger(hasty: Service) -> None:
    assert exchange(hasty, padded(MOST_HEAD)).startswith(ANSWERED)
    assert refusal(exchange(hasty, padded(MOST_HEAD + 1))) == (431, "headers_too_large")
    many = b"X: y\r\n" * (MOST_HEADERS - 2)
    assert exchange(hasty, HEAD, many, b"Connection: close\r\n\r\n").startswith(ANSWERED)
    assert refusal(exchange(hasty, HEAD, many, b"Z: y\r\nConnection: close\r\n\r\n")) == (431, "headers_too_large")


def test_a_long_target_and_long_trailers_are_headers_too(hasty: Service) -> None:
    assert refusal(exchange(hasty, b"GET /" + b"a" * 2 * MOST_HEAD)) == (431, "headers_too_large")
    post = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    chunks = post + b"\r\n\r\n1\r\n{\r\n0\r\n"
    assert refusal(exchange(hasty, chunks, b"X: y\r\n" * MOST_HEADERS)) == (431, "headers_too_large")
    assert refusal(exchange(hasty, chunks, b"X: ", b"y" * 2 * MOST_HEAD)) == (431, "headers_too_large")
    assert exchange(hasty, chunks, b"X: y\r\n\r\n" + HEAD + b"Connection: close\r\n\r\n").count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize("attack", [b"X: y\r\n" * 200_000, b"X: " + b"y" * 1_200_000], ids=["many", "long"])
def test_headers_without_end_take_neither_memory_nor_time(patient: Service, attack: bytes) -> None:
    """20 MB of them, and meanwhile others are answered."""
    before = memory(patient)
    stop = threading.Event()

    def send() -> None:
        with connected(patient) as connection, suppress(OSError):
            connection.sendall(HEAD)
            for _ in range(17):
                connection.sendall(attack)
            stop.wait(10)

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(5):
        assert patient.http.get("/healthz", timeout=5.0).status_code == 200
    stop.set()
    sender.join()
    assert memory(patient) - before < 20_000_000


def test_requests_sent_ahead_are_kept_as_bytes(patient: Service) -> None:
    """The first one waits; what 20 MB of others behind it take is bounded."""
    job = patient.submit(IRIS)
    slow = f"GET /v1/jobs/{job} HTTP/1.1\r\nHost: 127.0.0.1\r\nPrefer: wait=60\r\n\r\n".encode()
    before = memory(patient)
    with connected(patient) as connection:
        connection.sendall(slow)
        connection.settimeout(0.5)
        with suppress(TimeoutError):
            for _ in range(100):
                connection.sendall((HEAD + b"\r\n") * 5_000)
        assert memory(patient) - before < 20_000_000
    patient.http.post(f"/v1/jobs/{job}/cancel")


def test_requests_sent_ahead_are_all_answered_in_order(patient: Service) -> None:
    wanted = [b"/healthz", b"/nowhere"] * 300
    sent = b"".join(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path for path in wanted)
    answer = exchange(patient, sent, HEAD + b"Connection: close\r\n\r\n")
    statuses = [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [b"200", b"404"] * 300 + [b"200"]


def test_half_a_head_is_given_up(hasty: Service) -> None:
    """As the first on a connection, as a later one, and drop by drop; a connection without a byte is just closed."""
    assert refusal(exchange(hasty, HALF)) == (408, "timeout")
    with connected(hasty) as connection:
        connection.sendall(HEAD + b"\r\n")
        assert whole_answer(connection).startswith(ANSWERED)
        connection.sendall(HALF)
        assert refusal(rest(connection)) == (408, "timeout")
    with connected(hasty) as connection:
        connection.sendall(HEAD)
        while is_open(connection):
            with suppress(ConnectionError):
                connection.send(b"X")
            time.sleep(0.05)
    assert exchange(hasty) == b""


def test_the_rest_of_a_body_that_nobody_reads_is_given_up(hasty: Service) -> None:
    """After a refusal each byte more would keep the connection for ever."""
    with connected(hasty) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n{")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 404 ")
        until("the connection is closed", lambda: drip(connection), 10)


def drip(connection: socket.socket) -> bool:
    """Send a byte; whether the other side has closed."""
    with suppress(ConnectionError):
        connection.send(b" ")
    return not is_open(connection)


def test_what_is_no_http_is_a_problem_too(hasty: Service) -> None:
    assert refusal(exchange(hasty, b"\x16\x03\x01\r\n\r\n")) == (400, "malformed_http")
    bad = b"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked"
    assert refusal(exchange(hasty, bad + b"\r\n\r\nnonsense\r\n")) == (400, "malformed_http")


def test_the_usual_still_works(hasty: Service) -> None:
    assert exchange(hasty, b"GET /healthz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").endswith(b'{"status":"alive"}')
    head = exchange(hasty, b"HEAD /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert head.startswith(ANSWERED)
    assert head.endswith(b"\r\n\r\n")
    post = b"POST /v1/schedules/preview HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with connected(hasty) as connection:
        connection.sendall(post + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert rest(connection).startswith(b"HTTP/1.1 422 ")


@pytest.fixture
def crowd(patient: Service) -> Iterator[Callable[[str, int], list[socket.socket]]]:
    """So many connections from one address, each with half a request."""
    with ExitStack() as stack:

        def open_some(source: str, count: int) -> list[socket.socket]:
            made = [stack.enter_context(connected(patient, source)) for _ in range(count)]
            for connection in made:
                connection.sendall(HALF)
            return made

        yield open_some


def left(connections: list[socket.socket], most: int) -> int:
    """How many are open as soon as no more than `most` are."""
    return until(f"{most} are left", lambda: (found := sum(map(is_open, connections))) <= most and found, 20)


def test_half_sent_requests_shut_nobody_out(patient: Service, crowd: Callable[[str, int], list[socket.socket]]) -> None:
    """Neither others nor those who come from the same address: whoever has waited longest goes."""
    many = crowd("127.0.0.1", 200)
    assert left(many, MOST_OF_PEER) == MOST_OF_PEER
    assert all(map(is_open, many[-MOST_OF_PEER:]))
    assert patient.http.get("/healthz").status_code == 200
    with connected(patient, "127.0.0.2") as other:
        other.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert rest(other).startswith(ANSWERED)


def test_many_requests_at_one_moment_are_no_attack(patient: Service) -> None:
    """More clients than may be late, all connected before the first one speaks."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(patient)) for _ in range(3 * MOST_OF_PEER)]
        for client in clients:
            client.sendall(HEAD + b"Connection: close\r\n\r\n")
        assert all(rest(client).startswith(ANSWERED) for client in clients)


def test_a_trusted_proxy_may_have_more_up_to_the_bound_of_all(
    patient: Service, crowd: Callable[[str, int], list[socket.socket]]
) -> None:
    several = crowd(PROXY, 2 * MOST_OF_PEER)
    time.sleep(1.5)  # longer than a burst may last
    others = crowd("127.0.0.4", MOST_OF_PEER)
    assert all(map(is_open, several + others))
    more = crowd(PROXY, MOST_IN_ALL)
    assert left(several + others + more, MOST_IN_ALL) == MOST_IN_ALL
    assert patient.http.get("/healthz").status_code == 200


def test_it_takes_all_the_descriptors_that_it_may_have(hasty: Service) -> None:
    assert hasty.api is not None
    soft, hard = psutil.Process(hasty.api.pid).rlimit(psutil.RLIMIT_NOFILE)
    assert soft == hard > 1000


def test_networks_are_read_from_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASIN_TRUSTED_PROXIES", "10.0.0.0/8, ::1 ,127.0.0.1")
    assert [str(one) for one in Settings().trusted_proxies or ()] == ["10.0.0.0/8", "::1/128", "127.0.0.1/32"]
    monkeypatch.setenv("BASIN_TRUSTED_PROXIES", "proxy.example")
    with pytest.raises(ValueError, match="trusted_proxies"):
        Settings()
