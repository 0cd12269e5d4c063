"""Uploads to real servers: killed in the middle, several at once, many writers at one offset, and large ones."""

import hashlib
import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx2
import psutil
import pytest
from tusclient.client import TusClient

from core.jobs.datasets.rows import list_pieces
from core.settings import Settings
from core.store import open_store
from core.store.location import StoreLocation
from tests.support.broker import Broker
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.s3 import in_bucket
from tests.support.service import Service, until

MEGABYTE = 1 << 20
PIECE = 8 * MEGABYTE
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
Serve = Callable[[str, Broker | None], Service]


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.slow)])
def uploads(request: pytest.FixtureRequest, serve: Serve, database_url: str) -> Service:
    """An api without a worker, whose objects are in a folder, or in a bucket."""
    service = serve(database_url, None)
    if request.param == "bucket":
        bucket: StoreLocation = request.getfixturevalue("bucket")
        settings = in_bucket(bucket)
        service.environment |= {
            name.upper() if name.startswith("aws_") else f"BASIN_{name.upper()}": text
            for name, text in settings.items()
        }
    service.start_api()
    return service


def another_api(service: Service) -> httpx2.Client:
    """A client of one more api process over the same database and store."""
    first, address = service.api, service.http.base_url
    service.start_api()
    client = httpx2.Client(base_url=service.http.base_url, timeout=60.0)
    service.api, service.http.base_url = first, address
    return client


def announced(service: Service, content: bytes) -> str:
    body = {"name": "penguins", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    answer = service.http.post("/v1/datasets", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["links"]["content"])


def offset_of(client: httpx2.Client, path: str) -> int:
    return int(client.head(path).headers["upload-offset"])


def append(client: httpx2.Client, path: str, offset: int, content: Any) -> httpx2.Response:
    return client.patch(path, content=content, headers=TUS | {"Upload-Offset": str(offset)})


def stored(service: Service, path: str) -> bytes:
    names = ("STORE_URL", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    found = {name.lower(): service.environment.get(f"BASIN_{name}", service.environment.get(name)) for name in names}
    settings = Settings.model_validate({"home": service.home} | {name: text for name, text in found.items() if text})
    with service.database() as db, db.read() as connection:
        pieces = list_pieces(connection, path.split("/")[3])
    store = open_store(settings)
    return b"".join(b"".join(store.open_range(piece.key)) for piece in pieces)


@POSTGRESQL_IS_SLOW
def test_an_upload_goes_on_after_kill_9(uploads: Service) -> None:
    content = b"".join(hashlib.sha256(bytes([n])).digest() * (MEGABYTE // 32) for n in range(40))
    path = announced(uploads, content)
    go_on = threading.Event()

    def slowly() -> Iterator[bytes]:
        for start in range(0, len(content), MEGABYTE):
            if start == 20 * MEGABYTE:
                go_on.wait(60)
            yield content[start : start + MEGABYTE]

    def send() -> None:
        with pytest.raises(httpx2.TransportError):
            append(uploads.http, path, 0, slowly())

    watcher = httpx2.Client(base_url=uploads.http.base_url, timeout=20.0)
    sender = threading.Thread(target=send)
    sender.start()
    until("two pieces are recorded", lambda: offset_of(watcher, path) == 2 * PIECE)
    assert uploads.api is not None
    uploads.api.kill()
    go_on.set()
    sender.join(60)
    watcher.close()
    uploads.start_api()
    offset = offset_of(uploads.http, path)
    assert offset == 2 * PIECE
    answer = append(uploads.http, path, offset, content[offset:])
    assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(len(content)))
    assert stored(uploads, path) == content
    assert uploads.http.get(path.removesuffix("/content")).json()["status"] == "queued"


@POSTGRESQL_IS_SLOW
def test_eight_writers_at_one_offset(uploads: Service) -> None:
    """Over two api processes: one is right, seven learn the true offset; and looping, they finish it together."""
    content = b"".join(hashlib.sha256(bytes([n])).digest() * (MEGABYTE // 32) for n in range(24))
    path = announced(uploads, content)
    with another_api(uploads) as other, ThreadPoolExecutor(8) as pool:
        clients = [uploads.http, other] * 4
        answers = list(pool.map(lambda client: append(client, path, 0, content[:MEGABYTE]), clients))
        assert sorted(answer.status_code for answer in answers) == [204] + [409] * 7
        offsets = {answer.headers["upload-offset"] for answer in answers}
        assert offsets == {str(MEGABYTE)}

        def loop(client: httpx2.Client) -> None:
            while (offset := offset_of(client, path)) < len(content):
                assert append(client, path, offset, content[offset : offset + 2 * MEGABYTE]).status_code in {204, 409}

        list(pool.map(loop, clients))
    assert stored(uploads, path) == content
    shown = uploads.http.get(path.removesuffix("/content")).json()
    assert shown["status"] == "queued"
    with uploads.database() as db, db.read() as connection:
        jobs = connection.exec_driver_sql("SELECT count(*) FROM job WHERE kind = 'prepare'").scalar_one()
    assert jobs == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_large_upload_takes_little_memory(uploads: Service) -> None:
    block = hashlib.sha256(b"x").digest() * (MEGABYTE // 32)
    blocks = 300
    assert uploads.api is not None
    process = psutil.Process(uploads.api.pid)
    small = announced(uploads, block)
    assert uploads.http.put(small, content=block).status_code == 202, "its client libraries are loaded now"
    before = process.memory_info().rss
    peak, over = [before], threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peak.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        body = {"name": "large", "bytes": blocks * MEGABYTE}
        path = uploads.http.post("/v1/datasets", json=body).json()["links"]["content"]
        with httpx2.Client(base_url=uploads.http.base_url, timeout=120.0) as client:
            answer = client.put(path, content=(block for _ in range(blocks)))
        assert answer.status_code == 202, answer.text
    finally:
        over.set()
        watcher.join()
    assert max(peak) - before < 64 * MEGABYTE, f"{(max(peak) - before) / MEGABYTE:.0f} MiB more"
    assert not list(uploads.home.glob("*.tmp"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("checked", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_client_of_tus_resumes(uploads: Service, checked: bool) -> None:
    """A client that others wrote (tuspy), as it is: it is given the address of an upload that was created by JSON."""
    content = b"".join(hashlib.sha256(bytes([n])).digest() * (MEGABYTE // 32) for n in range(10))
    path = announced(uploads, content)
    client = TusClient(str(uploads.http.base_url))
    url = str(uploads.http.base_url).rstrip("/") + path
    make = partial(client.uploader, url=url, chunk_size=3 * MEGABYTE, upload_checksum=checked)
    make(file_stream=io.BytesIO(content)).upload_chunk()
    assert offset_of(uploads.http, path) == 3 * MEGABYTE
    make(file_stream=io.BytesIO(content)).upload()
    assert stored(uploads, path) == content
    assert uploads.http.get(path.removesuffix("/content")).json()["status"] == "queued"
