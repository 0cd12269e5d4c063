"""A PostgreSQL that hangs: no request waits for it longer than it may, and what waits for something else goes on."""

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from core.db.migrate import upgrade_schema
from tests.api.test_jobs import IRIS
from tests.support.broker import Broker
from tests.support.postgres import Cluster, server_binaries
from tests.support.service import Service, until

MOST = 3.0  # seconds that a request may wait
MANY = 200  # five times as many requests as there are threads: one round after the other would take five times as long


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server of its own, on which nothing else depends."""
    folder = Path(tempfile.mkdtemp(prefix="basin-hang-"))
    made = Cluster(folder, server_binaries())
    try:
        made.start()
        upgrade_schema(made.url)
        yield made
    finally:
        made.signal_all(signal.SIGCONT)
        made.crash()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def service(serve: Callable[[str, Broker | None], Service], cluster: Cluster) -> Service:
    running = serve(cluster.url, None)
    running.environment["BASIN_DATABASE_SECONDS"] = str(MOST)
    running.start_api()
    address = running.http.base_url
    running.http.close()
    running.http = httpx2.Client(base_url=address, timeout=60.0, limits=httpx2.Limits(max_connections=None))
    return running


@contextlib.contextmanager
def hanging(cluster: Cluster) -> Iterator[None]:
    cluster.signal_all(signal.SIGSTOP)
    try:
        yield
    finally:
        cluster.signal_all(signal.SIGCONT)


def timed(call: Callable[[], httpx2.Response]) -> tuple[httpx2.Response, float]:
    begun = time.monotonic()
    return call(), time.monotonic() - begun


def test_nobody_waits_for_a_database_that_hangs(service: Service, cluster: Cluster) -> None:
    """More requests than threads and connections, of every kind; afterwards none of them has had an effect."""
    http, own = service.http, f"/v1/jobs/{service.submit(IRIS)}"
    asked: list[Callable[[], httpx2.Response]] = [
        lambda: http.get(own),
        lambda: http.get("/v1/jobs"),
        lambda: http.post("/v1/jobs", json=IRIS),
        lambda: http.patch(own, json={"name": "late"}),
        lambda: http.post(f"{own}/cancel"),
        lambda: http.get(f"{own}/events"),
        lambda: http.get("/readyz"),
        lambda: http.get(own, headers={"Prefer": "wait=1"}),
    ]
    with ThreadPoolExecutor(MANY) as pool:
        # Connections are there, and some of them in use, when the server stops.
        assert {answer.status_code for answer in pool.map(lambda _: http.get(own), range(60))} == {200}
        waiting = pool.submit(http.get, own, headers={"Prefer": "wait=60"})
        time.sleep(0.3)
        with hanging(cluster):
            answers = list(pool.map(timed, [asked[number % len(asked)] for number in range(MANY)]))
            assert http.get("/healthz").status_code == 200
        until("the api answers again", lambda: http.get(own).status_code == 200, 10)
        http.patch(own, json={"metadata": {"seen": "yes"}})
        assert waiting.result().json()["metadata"] == {"seen": "yes"}
    refused = [answer for answer, _ in answers if "checks" not in answer.json()]
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(503, "unavailable")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert max(seconds for _, seconds in answers) < 3 * MOST
    (job,) = http.get("/v1/jobs").json()["data"]
    assert (job["name"], job["status"]) == (None, "queued")
