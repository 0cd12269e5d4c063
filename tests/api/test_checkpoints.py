"""Checkpoints over HTTP: whole, in parts, and not at all when the client has them."""

import base64
import hashlib
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.dependencies import Service
from api.errors import HttpError
from api.ranges import ByteRange, matches_etag, parse_range
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.queue.submit import create_job
from core.store.base import StoreTransient
from tests.api.test_jobs import taken
from tests.support.jobs import new_checkpoint, small_spec
from tests.support.stores import LosableFolder

WEIGHTS = random.Random(7).randbytes(2_500_001)  # more than two pieces of the store
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass(frozen=True)
class Stored:
    """A checkpoint that is really there."""

    id: str
    job: str
    key: str
    content: str


@pytest.fixture
def stored(client: TestClient, service: Service, tmp_path: Path) -> Stored:
    return put_checkpoint(service, tmp_path)


def put_checkpoint(service: Service, tmp_path: Path) -> Stored:
    job_id = create_job(service.db, small_spec(), owner="local").job_id
    fence = taken(service)
    (tmp_path / "w").write_bytes(WEIGHTS)
    files = {"weights": {"name": "weights.safetensors", "sha256": SHA256, "bytes": len(WEIGHTS)}}
    row = replace(new_checkpoint(fence, 8), sha256=SHA256, bytes=len(WEIGHTS), files=files)
    service.store.put_file(tmp_path / "w", f"{row.key}/weights.safetensors")
    record_checkpoint(service.db, fence, row, [], resumable=True)
    return Stored(row.id, job_id, row.key, f"/v1/checkpoints/{row.id}/content")


def test_checkpoints_are_listed_and_read(client: TestClient, stored: Stored) -> None:
    listed = client.get(f"/v1/jobs/{stored.job}/checkpoints").json()
    one = client.get(f"/v1/checkpoints/{stored.id}").json()
    assert listed == {"object": "list", "data": [one], "has_more": False, "last_id": stored.id}
    assert {name: one[name] for name in ("object", "job", "attempt", "step", "epoch", "kind", "metrics")} == {
        "object": "checkpoint",
        "job": stored.job,
        "attempt": 1,
        "step": 8,
        "epoch": 2,
        "kind": "last",
        "metrics": {"val.loss": 0.5},
    }
    assert (one["sha256"], one["bytes"]) == (SHA256, len(WEIGHTS))
    assert one["links"]["content"] == stored.content
    assert "key" not in one


def test_the_whole_content(client: TestClient, stored: Stored) -> None:
    answer = client.get(stored.content)
    assert answer.status_code == 200
    assert answer.content == WEIGHTS
    headers = answer.headers
    assert headers["etag"] == f'"{SHA256}"'
    assert headers["content-length"] == str(len(WEIGHTS))
    assert headers["accept-ranges"] == "bytes"
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == f'attachment; filename="{stored.job}-last-8.safetensors"'
    assert headers["repr-digest"] == f"sha-256=:{base64.b64encode(hashlib.sha256(WEIGHTS).digest()).decode()}:"
    head = client.head(stored.content)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(WEIGHTS)))


RANGES = {
    "bytes=0-0": (0, 1),
    "bytes=5-9": (5, 10),
    "bytes=2500000-": (2_500_000, 2_500_001),
    "bytes=-3": (2_499_998, 2_500_001),
    "bytes=0-99999999": (0, 2_500_001),
    "bytes=-99999999": (0, 2_500_001),
    "bytes=1048575-1048577": (1_048_575, 1_048_578),  # over the border of two pieces
}


def test_one_range(client: TestClient, stored: Stored) -> None:
    for asked, (first, end) in RANGES.items():
        answer = client.get(stored.content, headers={"Range": asked})
        assert answer.status_code == 206, asked
        assert answer.content == WEIGHTS[first:end], asked
        assert answer.headers["content-range"] == f"bytes {first}-{end - 1}/{len(WEIGHTS)}"
        assert answer.headers["content-length"] == str(end - first)
    for asked in ("bytes=0-1,4-5", "bytes=0-" + ",0-" * 10_000, "bytes=5-2", "lines=1-2"):
        answer = client.get(stored.content, headers={"Range": asked})
        assert (answer.status_code, len(answer.content)) == (200, len(WEIGHTS)), asked[:20]


def test_a_download_is_taken_up_again_only_if_it_is_the_same(client: TestClient, stored: Stored) -> None:
    rest = {"Range": "bytes=2500000-"}
    assert client.get(stored.content, headers=rest | {"If-Range": f'"{SHA256}"'}).status_code == 206
    for other in ('"other"', f'W/"{SHA256}"', "Mon, 23 Nov 2026 13:07:31 GMT"):
        assert client.get(stored.content, headers=rest | {"If-Range": other}).content == WEIGHTS


def test_nothing_is_sent_to_a_client_that_has_it(client: TestClient, stored: Stored) -> None:
    answer = client.get(stored.content, headers={"If-None-Match": f'"{SHA256}"', "Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == f'"{SHA256}"'


def test_a_range_beyond_the_end(client: TestClient, stored: Stored) -> None:
    for asked in ("bytes=2500001-", "bytes=99999999-100000000", "bytes=-0"):
        answer = client.get(stored.content, headers={"Range": asked})
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable"), asked
        assert answer.headers["content-range"] == f"bytes */{len(WEIGHTS)}"


def test_weights_that_are_gone_or_away(
    client: TestClient, service: Service, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise StoreTransient("disk /mnt/secret is away")

    service.store.delete(f"{stored.key}/weights.safetensors")
    gone = client.get(stored.content)
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
    assert stored.key not in gone.text
    monkeypatch.setattr(type(service.store), "open_range", away)
    answer = client.get(stored.content)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")


@pytest.mark.parametrize("way", ["moved", "emptied", "a file"])
def test_weights_of_a_store_that_is_not_ours_are_away(
    client: TestClient, stored: Stored, tmp_path: Path, way: str
) -> None:
    """They are not gone, and readiness says why; neither names the place."""
    with LosableFolder(tmp_path / "store", way).lost():
        answer = client.get(stored.content)
        assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "2"
        ready = client.get("/readyz")
        check = ready.json()["checks"]["store"]
        assert (ready.status_code, ready.json()["status"], check["ok"]) == (200, "degraded", False)
        if way != "a file":
            assert "not the one that this database was made with" in check["detail"]
        assert str(tmp_path) not in answer.text + ready.text
    assert client.get(stored.content).content == WEIGHTS
    assert client.get("/readyz").json()["checks"]["store"]["ok"]


SIZE = 100


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, None),
        ("", None),
        ("bytes", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=5-2", None),
        ("bytes=1-2,4-5", None),
        ("bytes=0-" + ",0-" * 10_000, None),
        ("bytes=" + "1" * 10_000 + "-", None),
        ("chunks=0-1", None),
        ("bytes=0-99", ByteRange(0, 100, SIZE)),
        ("bytes=0-100", ByteRange(0, 100, SIZE)),
        ("bytes=99-", ByteRange(99, 100, SIZE)),
        ("bytes= 1-1 ", ByteRange(1, 2, SIZE)),
        ("bytes=-100", ByteRange(0, 100, SIZE)),
        ("bytes=-1", ByteRange(99, 100, SIZE)),
    ],
)
def test_ranges_are_read_as_the_rfc_says(header: str | None, span: ByteRange | None) -> None:
    """What is not one well-formed range is as good as none: the whole is always a right answer."""
    assert parse_range(header, None, '"e"', SIZE) == span


@pytest.mark.parametrize(
    ("header", "size"), [("bytes=100-", 100), ("bytes=-0", 100), ("bytes=0-0", 0), ("bytes=-1", 0)]
)
def test_ranges_that_cannot_be_had(header: str, size: int) -> None:
    with pytest.raises(HttpError) as caught:
        parse_range(header, None, '"e"', size)
    assert (caught.value.status, caught.value.headers["Content-Range"]) == (416, f"bytes */{size}")


def test_tags_are_compared_weakly() -> None:
    yes: Any = ['"a"', 'W/"a"', '"b", "a"', "*", ' "a" ']
    assert [tag for tag in yes if not matches_etag(tag, 'W/"a"')] == []
    no: Any = [None, "", "a", '"b"', '"*"', '"A"', 'w/"b"']
    assert [tag for tag in no if matches_etag(tag, 'W/"a"')] == []
