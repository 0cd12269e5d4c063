"""Weights in an S3 store: the api sends clients there, and keeps what only it can answer."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from api.app import create_app
from core.settings import Settings
from core.store.location import StoreLocation
from tests.api.conftest import service_of, settings_for, started
from tests.api.test_checkpoints import SHA256, WEIGHTS, Stored, put_checkpoint
from tests.support.s3 import SECRET, in_bucket
from tests.support.stores import LosableBucket


def client_of(home: Path, url: str, bucket: StoreLocation, **more: str) -> Iterator[TestClient]:
    settings = settings_for(home, url).model_copy(update=in_bucket(bucket) | more)
    yield from started(create_app(Settings.model_validate(settings.model_dump())))


@pytest.fixture
def client(tmp_path: Path, sqlite_url: str, bucket: StoreLocation) -> Iterator[TestClient]:
    yield from client_of(tmp_path, sqlite_url, bucket)


@pytest.fixture
def streaming(tmp_path: Path, sqlite_url: str, bucket: StoreLocation) -> Iterator[TestClient]:
    yield from client_of(tmp_path, sqlite_url, bucket, downloads="stream")


@pytest.fixture
def stored(client: TestClient, tmp_path: Path) -> Stored:
    return put_checkpoint(service_of(client), tmp_path)


def test_a_get_is_sent_to_the_store(client: TestClient, stored: Stored) -> None:
    """By a URL that works for some minutes, for this object, and for whoever holds it: nobody may keep it."""
    answer = client.get(stored.content, follow_redirects=False)
    assert (answer.status_code, answer.content) == (307, b"")
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    url = httpx2.URL(answer.headers["location"])
    assert url.path.endswith(f"{stored.key}/weights.safetensors")
    assert 0 < int(url.params["X-Amz-Expires"]) <= 900
    assert SECRET not in str(url)
    assert httpx2.get(url, trust_env=False).content == WEIGHTS
    part = httpx2.get(url, headers={"Range": "bytes=5-9"}, trust_env=False)
    assert (part.status_code, part.content) == (206, WEIGHTS[5:10])


def test_what_the_api_knows_it_answers_itself(client: TestClient, stored: Stored) -> None:
    head = client.head(stored.content, follow_redirects=False)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(WEIGHTS)))
    assert head.headers["etag"] == f'"{SHA256}"'
    same = {"If-None-Match": f'"{SHA256}"'}
    assert client.get(stored.content, headers=same, follow_redirects=False).status_code == 304
    beyond = client.get(stored.content, headers={"Range": "bytes=99999999-"}, follow_redirects=False)
    assert beyond.status_code == 416


@pytest.mark.parametrize("way", ["emptied", "another"])
def test_nobody_is_sent_to_a_bucket_that_is_not_ours(
    client: TestClient, stored: Stored, tmp_path: Path, bucket: StoreLocation, way: str
) -> None:
    (tmp_path / "aside").mkdir()
    losable = LosableBucket(bucket, way, tmp_path / "aside")
    store = service_of(client).store
    losable.plain = store._store  # type: ignore[attr-defined] # what the service looks into
    with losable.lost():
        answer = client.get(stored.content, follow_redirects=False)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
    assert client.get(stored.content, follow_redirects=False).status_code == 307


def test_a_range_is_left_to_the_store(client: TestClient, stored: Stored) -> None:
    answer = client.get(stored.content, headers={"Range": "bytes=5-9"}, follow_redirects=False)
    assert (answer.status_code, "content-range" in answer.headers) == (307, False)


def test_nobody_is_sent_to_a_store_that_only_the_service_reaches(streaming: TestClient, tmp_path: Path) -> None:
    """In a compose network, say."""
    stored = put_checkpoint(service_of(streaming), tmp_path)
    answer = streaming.get(stored.content, follow_redirects=False)
    assert (answer.status_code, answer.content) == (200, WEIGHTS)
    part = streaming.get(stored.content, headers={"Range": "bytes=2500000-"}, follow_redirects=False)
    assert (part.status_code, part.content) == (206, WEIGHTS[2_500_000:])
    service_of(streaming).store.delete(f"{stored.key}/weights.safetensors")
    assert streaming.get(stored.content).status_code == 404


def test_readiness_asks_the_store(client: TestClient, tmp_path: Path, sqlite_url: str, bucket: StoreLocation) -> None:
    ready = client.get("/readyz").json()
    assert (ready["checks"]["store"]["ok"], ready["plugins"]) == (True, {"joined": [], "refused": []})
    for other in client_of(tmp_path, sqlite_url, bucket, store_url="s3://no-such-bucket"):
        answer = other.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert "store" in answer.json()["degraded"]
        assert answer.json()["checks"]["store"] == {"ok": False, "required": False, "detail": "away"}


def test_the_secrets_of_the_store_do_not_show(bucket: StoreLocation) -> None:
    settings = Settings.model_validate(in_bucket(bucket) | {"aws_session_token": SecretStr("t0k3n-c4n4ry")})
    assert "c4n4ry" not in f"{settings!r} {settings}"
