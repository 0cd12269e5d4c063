"""Downloads that the service sends elsewhere: to a store that is none of the API key's business."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from basin.client import Client
from basin.errors import BadAnswer, DigestMismatch, Unreachable
from basin.shapes import Checkpoint
from tests.sdk.stub import Answer, Asked, Stub, serving

WEIGHTS = bytes(range(256)) * 20_000
SHA = hashlib.sha256(WEIGHTS).hexdigest()
CHECKPOINT = Checkpoint(id="ckpt_1", kind="swa", sha256=SHA)
CONTENT = "/v1/checkpoints/ckpt_1/content"
OBJECT = "/bucket/jobs/x/weights.safetensors"
KEY = "bsn_1_c4n4ry"


@pytest.fixture
def store() -> Iterator[Stub]:
    with serving() as one:
        yield one


@pytest.fixture
def client(stub: Stub) -> Iterator[Client]:
    with Client(stub.url, KEY) as one:
        yield one


def to(store: Stub) -> Answer:
    return Answer(307, b"", {"Location": f"{store.url}{OBJECT}?X-Amz-Signature=s1gn4tur3"})


def test_the_key_stays_with_the_service(stub: Stub, store: Stub, client: Client, tmp_path: Path) -> None:
    stub.on("GET", CONTENT, to(store))
    store.on("GET", OBJECT, Answer(200, WEIGHTS))
    assert client.download(CHECKPOINT, tmp_path / "weights").read_bytes() == WEIGHTS
    (here,), (there,) = stub.requests("GET", CONTENT), store.requests("GET", OBJECT)
    assert here.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in there.headers
    assert KEY not in f"{there.headers}{there.query}"


def rest(asked: Asked) -> Answer:
    start = int(asked.headers["range"].removeprefix("bytes=").removesuffix("-"))
    assert start > 0
    return Answer(206, WEIGHTS[start:], {"ETag": '"of-the-store"'})


def test_each_try_begins_at_the_service(stub: Stub, store: Stub, client: Client, tmp_path: Path) -> None:
    """The store stumbles, then breaks off: a fresh URL every time, and the rest from where it broke."""
    stub.on("GET", CONTENT, to(store))
    broken = Answer(200, WEIGHTS, {"ETag": '"of-the-store"'}, cut=3_000_000)
    store.on("GET", OBJECT, Answer(503, b"<Error/>"), broken, rest)
    assert client.download(CHECKPOINT, tmp_path / "weights").read_bytes() == WEIGHTS
    assert len(stub.requests("GET", CONTENT)) == 3


def test_what_the_store_gives_is_verified(stub: Stub, store: Stub, client: Client, tmp_path: Path) -> None:
    stub.on("GET", CONTENT, to(store))
    store.on("GET", OBJECT, Answer(200, WEIGHTS[:-1] + b"?"))
    with pytest.raises(DigestMismatch):
        client.download(CHECKPOINT, tmp_path / "weights")
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_refuses_or_is_away_is_named_without_its_signature(
    stub: Stub, store: Stub, client: Client, tmp_path: Path
) -> None:
    stub.on("GET", CONTENT, to(store))
    store.on("GET", OBJECT, Answer(403, b"<Error><Code>AccessDenied</Code></Error>"))
    with pytest.raises(BadAnswer) as refused:
        client.download(CHECKPOINT, tmp_path / "weights")
    assert store.url in str(refused.value)
    store.on("GET", OBJECT, Answer(cut=-1))
    with pytest.raises(Unreachable) as away:
        client.download(CHECKPOINT, tmp_path / "weights")
    assert away.value.url == store.url
    assert "s1gn4tur3" not in f"{refused.value} {away.value}"
