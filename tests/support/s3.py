"""Fixtures: a real S3 server from the moto wheel in a process of its own, a fresh folder in it, a proxy before it."""

import contextlib
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

import core.process
from core.store.location import Bucket, StoreLocation
from core.store.s3 import S3Store
from tests.support.proxy import Proxy, proxied

START_SECONDS = 60.0
BUCKET = "basin-test"
SECRET = "s3cr3t-c4n4ry"  # noqa: S105 - moto takes any; tests look for it where it must not be


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreLocation]:
    """A server with one bucket. It keeps everything in memory."""
    log = tmp_path_factory.mktemp("s3") / "moto.log"
    moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with log.open("wb") as out:
        # Tied to this process, so that even SIGKILL to the tests leaves no server behind.
        server = subprocess.Popen(
            [sys.executable, "-I", "-S", core.process.__file__, str(os.getpid()), *moto],
            env={**os.environ, "MOTO_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        endpoint = _address(server, log)
        assert httpx2.put(f"{endpoint}/{BUCKET}", timeout=30.0, trust_env=False).status_code == 200
        yield StoreLocation(Bucket(BUCKET, ""), endpoint, "us-east-1", "AKIDEXAMPLE", SECRET)
    finally:
        server.kill()
        server.wait()


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while (found := re.search(r"Running on (http://\S+)", log.read_text())) is None:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    return found[1]


@pytest.fixture
def bucket(s3_server: StoreLocation) -> StoreLocation:
    """A folder of the bucket that nobody else uses."""
    return replace(s3_server, bucket=Bucket(BUCKET, f"test-{secrets.token_hex(6)}/basin"))


def in_bucket(place: StoreLocation) -> dict[str, str]:
    """The settings of a service that keeps its objects there."""
    return {
        "store_url": f"s3://{place.bucket.name}/{place.bucket.prefix}",
        "s3_endpoint": place.endpoint,
        "aws_access_key_id": place.key_id,
        "aws_secret_access_key": place.secret,
    }


@contextlib.contextmanager
def unreliable(place: StoreLocation) -> Iterator[tuple[Proxy, StoreLocation]]:
    """A proxy before the server, and the place behind it."""
    host, port = place.endpoint.removeprefix("http://").split(":")
    with proxied((host, int(port))) as proxy:
        yield proxy, replace(place, endpoint=proxy.url)


@pytest.fixture
def proxy_and_store(bucket: StoreLocation) -> Iterator[tuple[Proxy, S3Store]]:
    """A store behind a proxy, on which everything passes until it is told otherwise."""
    with unreliable(bucket) as (proxy, place):
        yield proxy, S3Store(place)
