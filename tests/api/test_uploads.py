"""Uploads in pieces: the verbs of tus 1.0, and what goes wrong in the middle."""

import asyncio
import base64
import errno
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

import api.uploads
from api.app import create_app
from api.dependencies import Service
from core.errors import Unavailable
from core.jobs.datasets.pieces import PIECE_BYTES
from core.jobs.datasets.rows import list_pieces
from core.jobs.keys import create_key
from core.settings import Limits
from core.store.base import Digest, StoreTransient
from tests.api.conftest import service_of, settings_for, started
from tests.api.test_datasets import created, read
from tests.support.uploads import CSV, digest, stored_content

TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def append(client: TestClient, path: str, offset: int, content: Any, **headers: str) -> Any:
    return client.patch(path, content=content, headers=TUS | {"Upload-Offset": str(offset)} | headers)


def offset_of(client: TestClient, path: str) -> int:
    answer = client.head(path)
    assert (answer.status_code, answer.headers["cache-control"]) == (204, "no-store")
    return int(answer.headers["upload-offset"])


def checksum(algorithm: str, content: bytes) -> dict[str, str]:
    text = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    return {"Upload-Checksum": f"{algorithm} {text}"}


def test_an_upload_in_pieces(client: TestClient, service: Service) -> None:
    found = created(client)
    path = found["links"]["content"]
    asked = client.head(path)
    assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("0", str(len(CSV)))
    assert asked.headers["tus-resumable"] == "1.0.0"
    first = append(client, path, 0, CSV[:10])
    assert (first.status_code, first.headers["upload-offset"], first.content) == (204, "10", b"")
    assert (offset_of(client, path), read(client, found["id"])["upload"]["offset"]) == (10, 10)
    for wrong in (0, 9, 11, len(CSV)):
        answer = append(client, path, wrong, CSV[:1])
        assert (answer.status_code, answer.headers["upload-offset"], answer.json()["code"]) == (
            409,
            "10",
            "offset_mismatch",
        )
    assert append(client, path, 10, CSV[10:] + b"x").status_code == 413
    assert append(client, path, 10, iter([CSV[10:], b"x"])).status_code == 413
    last = append(client, path, 10, CSV[10:])
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(CSV)))
    assert (read(client, found["id"])["status"], service.hints.heard) == ("queued", ["light"])  # type: ignore[attr-defined]
    assert stored_content(service.db, service.store, found["id"]) == CSV
    assert append(client, path, len(CSV), b"").status_code == 204, "the last answer was lost, and asked for again"
    assert append(client, path, 0, CSV).status_code == 409


def test_capabilities_and_versions(light: TestClient) -> None:
    path = created(light)["links"]["content"]
    asked = light.options(path)
    assert (asked.status_code, asked.headers["tus-version"]) == (204, "1.0.0")
    assert (asked.headers["tus-extension"], asked.headers["tus-checksum-algorithm"]) == ("checksum", "sha1,sha256")
    other = append(light, path, 0, CSV, **{"Tus-Resumable": "0.2.2"})
    assert (other.status_code, other.headers["tus-version"]) == (412, "1.0.0")
    assert light.patch(path, content=CSV, headers={"Content-Type": TUS["Content-Type"]}).status_code == 422
    assert append(light, path, -1, CSV).status_code == 422
    assert offset_of(light, path) == 0


def test_a_compressed_body_is_refused(light: TestClient) -> None:
    """Its bytes would be stored in place of the file's."""
    found = created(light)
    path = found["links"]["content"]
    zipped = {"Content-Type": "application/octet-stream", "Content-Encoding": "gzip"}
    assert light.put(path, content=CSV, headers=zipped).status_code == 415
    assert append(light, path, 0, CSV, **{"Content-Encoding": "gzip"}).status_code == 415
    assert light.post("/v1/datasets?name=a", content=CSV, headers=zipped).status_code == 415
    assert (offset_of(light, path), read(light, found["id"])["status"]) == (0, "uploading")


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_checksum_is_checked_before_anything_is_kept(client: TestClient, service: Service, algorithm: str) -> None:
    found = created(client)
    path = found["links"]["content"]
    wrong = append(client, path, 0, CSV, **checksum(algorithm, CSV + b"x"))
    assert (wrong.status_code, wrong.json()["code"]) == (460, "checksum_mismatch"), wrong.text
    assert offset_of(client, path) == 0
    assert list(service.store.list("uploads/")) == []
    assert append(client, path, 0, CSV, **checksum(algorithm, CSV)).status_code == 204
    assert read(client, found["id"])["status"] == "queued"


@pytest.mark.parametrize("given", ["md5 AAAA", "sha256", "sha256 !", "sha256 AAAA", ""])
def test_a_checksum_that_cannot_be_checked_is_refused(light: TestClient, given: str) -> None:
    path = created(light)["links"]["content"]
    answer = append(light, path, 0, CSV, **{"Upload-Checksum": given})
    assert (answer.status_code, answer.headers["tus-checksum-algorithm"]) == (400, "sha1,sha256")
    assert offset_of(light, path) == 0


def test_pieces_are_cut_exactly(client: TestClient, service: Service) -> None:
    content = bytes(range(256)) * (80 * 1024)  # 20 MiB
    found = created(client, bytes=len(content), sha256=digest(content))
    path = found["links"]["content"]
    assert append(client, path, 0, iter([content[:100], content[100 : 9 << 20]])).status_code == 204
    assert append(client, path, 9 << 20, content[9 << 20 :]).status_code == 204
    with service.db.read() as connection:
        pieces = list_pieces(connection, found["id"])
    assert [piece.bytes for piece in pieces] == [PIECE_BYTES, 1 << 20, PIECE_BYTES, 3 << 20]
    assert [piece.key.split("/")[2].partition("-")[0] for piece in pieces] == [f"{each.offset:016d}" for each in pieces]
    assert stored_content(service.db, service.store, found["id"]) == content


def test_what_arrived_before_the_break_stays(client: TestClient, service: Service) -> None:
    content = bytes(9 << 20)
    found = created(client, bytes=len(content))
    path = found["links"]["content"]

    begun = {"type": "http.request", "body": content[: PIECE_BYTES + 1000], "more_body": True}
    assert answered(client, path, [begun, {"type": "http.disconnect"}]) is None
    offset = offset_of(client, path)
    assert offset == PIECE_BYTES + 1000
    assert append(client, path, offset, content[offset:]).status_code == 204
    assert stored_content(service.db, service.store, found["id"]) == content


def test_a_slow_body_is_ended_and_kept(light: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.uploads, "RATE_SECONDS", 0.05)
    monkeypatch.setattr(api.uploads, "LEAST_RATE", 10**12)
    found = created(light)
    path = found["links"]["content"]

    messages = [{"type": "http.request", "body": CSV[:7], "more_body": True}]
    assert answered(light, path, messages) == 408
    assert offset_of(light, path) == 7


def answered(client: TestClient, path: str, messages: list[dict[str, Any]]) -> int | None:
    """The status of a PATCH whose client sends these messages and then nothing."""
    headers = {"host": "127.0.0.1:8000", "upload-offset": "0", "content-type": TUS["Content-Type"]}
    scope = {
        "type": "http",
        "method": "PATCH",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "scheme": "http",
        "root_path": "",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "app": client.app,
    }
    seen: list[int] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    app: Any = client.app
    assert client.portal is not None
    client.portal.call(app, scope, receive, send)
    return seen[0] if seen else None


class FailingStore:
    """A store whose next put fails."""

    def __init__(self, store: Any, error: Exception) -> None:
        self._store, self._error = store, error

    def put_bytes(self, content: bytes, key: str) -> Digest:
        raise self._error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OSError(errno.ENOSPC, "full"), 507, "store_full"),
        (OSError(errno.EROFS, "read-only"), 503, "store_unavailable"),
        (StoreTransient("away"), 503, "store_unavailable"),
    ],
)
def test_a_store_that_fails_is_said_and_the_upload_goes_on(
    light: TestClient, error: Exception, status: int, code: str
) -> None:
    found = created(light)
    path = found["links"]["content"]
    assert append(light, path, 0, CSV[:5]).status_code == 204
    app: Any = light.app
    whole = app.state.service
    store: Any = FailingStore(whole.store, error)
    app.state.service = replace(whole, store=store)
    answer = append(light, path, 5, CSV[5:])
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    app.state.service = whole
    assert offset_of(light, path) == 5
    assert append(light, path, 5, CSV[5:]).status_code == 204
    assert stored_content(service_of(light).db, whole.store, found["id"]) == CSV


def test_an_upload_waits_for_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.uploads, "TURN_SECONDS", 0.01)

    async def enter() -> None:
        slots = api.uploads.UploadSlots(1)
        async with slots.take_turn():
            with pytest.raises(Unavailable, match="Too many uploads"):
                await slots.take_turn().__aenter__()
        async with slots.take_turn():
            pass

    asyncio.run(enter())


def test_a_full_queue_does_not_lose_an_upload(client: TestClient, service: Service) -> None:
    """The bytes stay, and the dataset is queued when there is room."""
    key = create_key(service.db, owner="local", limits=Limits(queued_jobs=1))[1]
    client.headers["Authorization"] = f"Bearer {key}"
    first, second = (created(client)["links"]["content"] for _ in range(2))
    assert append(client, first, 0, CSV).status_code == 204
    full = append(client, second, 0, CSV)
    assert (full.status_code, full.json()["limit"]) == (429, "queued_jobs")
    assert offset_of(client, second) == len(CSV)
    own = second.removesuffix("/content")
    assert client.post(f"{own}/prepare").status_code == 429
    assert client.post(f"{first.removesuffix('/content')}/cancel").status_code == 202
    assert client.post(f"{own}/prepare").json()["status"] == "queued"
    assert append(client, second, len(CSV), b"").status_code == 204


def test_limits_of_the_service_are_told_before_the_first_byte(tmp_path: Path, sqlite_url: str) -> None:
    settings = settings_for(tmp_path, sqlite_url).model_copy(update={"upload_bytes": 100})
    for client in started(create_app(settings)):
        assert client.post("/v1/datasets", json={"name": "x", "bytes": 101}).status_code == 413
        octets = {"Content-Type": "application/octet-stream"}
        assert client.post("/v1/datasets?name=x", content=bytes(101), headers=octets).status_code == 413
        assert client.post("/v1/datasets?name=x", content=iter([bytes(101)]), headers=octets).status_code == 413
        found = created(client, bytes=50)
        assert client.put(found["links"]["content"], content=bytes(101)).status_code == 413
        unknown = client.post("/v1/datasets", json={"name": "x"}).json()
        assert unknown["bytes"] is None
        assert client.put(unknown["links"]["content"], content=bytes(100)).status_code == 202
        assert client.post("/v1/datasets", content=b'{"a": "' + bytes(2 << 20), headers=octets).status_code == 413


def test_a_refused_short_upload_leaves_no_dataset(tmp_path: Path, sqlite_url: str) -> None:
    """Its id was not told, so it could only wait for its end and count for the limits. With a key it is repeated."""
    settings = settings_for(tmp_path, sqlite_url).model_copy(update={"upload_bytes": 100})
    octets = {"Content-Type": "application/octet-stream"}
    for client in started(create_app(settings)):
        for content, status in ((b"", 422), (bytes(101), 413)):
            assert client.post("/v1/datasets?name=x", content=iter([content]), headers=octets).status_code == status
        assert client.get("/v1/datasets").json()["data"] == []
        keyed = octets | {"Idempotency-Key": "one"}
        assert client.post("/v1/datasets?name=x", content=iter([b""]), headers=keyed).status_code == 422
        assert client.post("/v1/datasets?name=x", content=iter([CSV]), headers=keyed).status_code == 202
