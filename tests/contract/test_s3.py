"""What only a store behind a network can get wrong: answers that never come, refusals, uploads left half way."""

import errno
import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from core.store.base import Digest, StoreMissing, StoreRefused, StoreTaken, StoreTransient
from core.store.location import Bucket, StoreLocation
from core.store.s3 import S3Store
from core.store.s3_client import TUNING, S3Tuning
from tests.support.proxy import Fault, Proxy, answer
from tests.support.s3 import SECRET, unreliable

Pair = tuple[Proxy, S3Store]
T = TypeVar("T")
FAULTS: list[Fault] = ["refuse", "reset", "lose", "cut"]
KEY = "jobs/job_a/1-2-ff/weights.safetensors"
LARGE = random.Random(7).randbytes((5 << 20) + 5)  # two parts, the second of five bytes


HASTY = S3Tuning(
    whole_bytes=5 << 20,
    part_bytes=5 << 20,  # the least that S3 takes
    first_pause=TUNING.first_pause / 50,
    last_pause=TUNING.last_pause / 50,
    pause_seconds=0.001,
)
IMPATIENT = replace(HASTY, inner_tries=0)


@pytest.fixture
def proxy_and_store(bucket: StoreLocation) -> Iterator[Pair]:
    """A store behind a proxy, on which everything passes until it is told otherwise."""
    with unreliable(bucket) as (proxy, place):
        yield proxy, S3Store(place, HASTY)


def file(folder: Path, content: bytes) -> Path:
    path = folder / "source.bin"
    path.write_bytes(content)
    return path


def digest(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest(), len(content))


def keys(store: S3Store) -> list[str]:
    return [stored.key for stored in store.list("")]


def in_the_end(call: Callable[[], T]) -> T:
    """As callers do: the same again, as long as the store says that it may pass."""
    for _ in range(20):
        try:
            return call()
        except StoreTransient:
            continue
    return call()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("content", [b"small", LARGE], ids=["whole", "parts"])
def test_one_fault_is_not_even_noticed(proxy_and_store: Pair, tmp_path: Path, content: bytes, fault: Fault) -> None:
    """Whatever it hits: the first request of an upload, the last, a part, a look, a read, a listing, a removal."""
    proxy, store = proxy_and_store
    source = file(tmp_path, content)
    hits = [("PUT", "partNumber=2"), ("POST", "uploads"), ("POST", "uploadId")] if content is LARGE else [("PUT", KEY)]
    for method, part in hits:
        proxy.once(fault, method, part)
        assert store.put_file(source, KEY) == digest(content)
        assert fault in proxy.met(method, part)
        proxy.calm()
        assert keys(store) == [KEY]
        assert store.fetch(KEY, tmp_path / "back") == digest(content)
        store.delete(KEY)
    store.put_file(source, KEY)
    for method, call in (
        ("HEAD", lambda: store.size(KEY)),
        ("GET", lambda: store.fetch(KEY, tmp_path / "back")),
        ("GET", lambda: keys(store)),
        ("DELETE", lambda: store.delete(KEY)),
    ):
        proxy.once(fault, method)
        call()
    assert keys(store) == []


@pytest.mark.parametrize("seed", range(3))
def test_three_requests_of_ten_go_wrong(proxy_and_store: Pair, tmp_path: Path, seed: int) -> None:
    """F29. Everything is done in the end, nothing is damaged or twice there, and what was left half way is removed."""
    proxy, store = proxy_and_store
    proxy.at_random(0.3, seed)
    contents = {f"jobs/job_a/1-{n}-ff/weights": LARGE if n == 0 else b"%d" % n * 99 for n in range(8)}
    for key, content in contents.items():
        source = file(tmp_path, content)
        assert in_the_end(lambda key=key, source=source: store.put_file(source, key)) == digest(content)  # type: ignore[misc]
    assert in_the_end(lambda: keys(store)) == sorted(contents)
    for key, content in contents.items():
        assert in_the_end(lambda key=key: store.fetch(key, tmp_path / "back")) == digest(content)  # type: ignore[misc]
        in_the_end(lambda key=key: store.delete(key))  # type: ignore[misc]
    assert len([one for one in proxy.passed if one.choice]) > 8
    proxy.calm()
    store.remove_unfinished(0.0)
    assert (keys(store), store.remove_unfinished(0.0)) == ([], 0)


def test_stored_but_the_answer_was_lost(proxy_and_store: Pair, tmp_path: Path) -> None:
    """F30. The next try looks first, finds its own bytes, and takes them for what they are."""
    proxy, store = proxy_and_store
    source = file(tmp_path, b"abc")
    store.put_file(source, "jobs/first")
    proxy.choose = lambda method, _target: "lose" if method == "PUT" else None
    assert store.put_file(source, KEY) == digest(b"abc")
    assert len(proxy.met("PUT", KEY)) == 1
    assert keys(store) == sorted([KEY, "jobs/first"])


def test_an_upload_that_died_is_swept_and_objects_are_not(proxy_and_store: Pair, tmp_path: Path) -> None:
    """A worker that is killed between the parts cannot clean up, and neither can one that hears nothing any more."""
    proxy, store = proxy_and_store
    source = file(tmp_path, LARGE)
    proxy.choose = lambda method, _target: "reset" if method == "DELETE" else answer(403) if method == "PUT" else None
    with pytest.raises(StoreTransient):
        store.put_file(source, KEY)
    begun = len(proxy.met("POST", "uploads"))
    proxy.calm()
    assert keys(store) == []
    store.put_file(source, "jobs/other")
    assert (store.remove_unfinished(0.0), store.remove_unfinished(0.0)) == (begun, 0)
    assert store.fetch("jobs/other", tmp_path / "back") == digest(LARGE)
    proxy.choose = lambda _method, _target: answer(403)
    assert store.remove_unfinished(0.0) == 0  # not allowed: the rest of the sweep goes on


def without_condition(request: bytes) -> bytes:
    return request.replace(b"if-none-match: *\r\n", b"")


def test_a_server_that_ignores_conditions_is_found_out(proxy_and_store: Pair, tmp_path: Path) -> None:
    proxy, store = proxy_and_store
    proxy.edit_request = without_condition
    assert store.put_file(file(tmp_path, b"abc"), KEY) == digest(b"abc")
    assert store.put_file(file(tmp_path, b"abc"), KEY) == digest(b"abc")
    with pytest.raises(StoreTaken):
        store.put_file(file(tmp_path, b"abd"), KEY)
    assert store.fetch(KEY, tmp_path / "back") == digest(b"abc")
    assert len(proxy.met("PUT", ".created-once")) == 2  # asked once, not before every upload
    assert keys(store) == [KEY]


def encrypted(target: str, message: bytes) -> bytes:
    """As from a bucket with its own encryption keys: the tag of an object is no MD5."""
    if "partNumber" in target:
        return message
    tag = re.compile(rb'(?<=ETag: ")[^"]*(?=")|(?<=<ETag>)[^<]*(?=</ETag>)', re.IGNORECASE)
    return tag.sub(lambda found: b"x" * len(found[0]), message)


@pytest.mark.parametrize("content", [b"small", LARGE], ids=["whole", "parts"])
def test_a_tag_that_says_nothing_is_made_up_for_by_reading(
    proxy_and_store: Pair, tmp_path: Path, content: bytes
) -> None:
    proxy, store = proxy_and_store
    store.put_file(file(tmp_path, content), "jobs/plain")
    assert len(proxy.met("GET", "jobs/plain")) == (content is LARGE)  # a look before it; afterwards its tag was enough
    proxy.edit_answer = encrypted
    assert store.put_file(file(tmp_path, content), KEY) == digest(content)
    assert store.put_file(file(tmp_path, content), KEY) == digest(content)
    with pytest.raises(StoreTaken):
        store.put_file(file(tmp_path, content[:-1] + b"?"), KEY)
    assert proxy.met("GET", KEY)


def test_what_arrives_damaged_is_removed_and_sent_again(proxy_and_store: Pair, tmp_path: Path) -> None:
    proxy, store = proxy_and_store
    store.put_file(file(tmp_path, b"abc"), "jobs/first")
    proxy.edit_request = lambda request: request.replace(b"\r\n\r\nabc", b"\r\n\r\nabd")
    with pytest.raises(StoreTransient, match="damaged"):
        store.put_file(file(tmp_path, b"abc"), KEY)
    proxy.edit_request = lambda request: request
    assert keys(store) == ["jobs/first"]
    assert store.put_file(file(tmp_path, b"abc"), KEY) == digest(b"abc")


def xml(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{SECRET}</Message></Error>'


REFUSALS: list[tuple[bytes, type[Exception], type[Exception] | int]] = [
    (answer(500), StoreTransient, StoreTransient),
    (answer(503, xml("SlowDown")), StoreTransient, StoreTransient),
    (answer(429), StoreTransient, StoreTransient),
    (answer(400, xml("RequestTimeout")), StoreTransient, StoreTransient),
    (answer(403, xml("AccessDenied")), StoreRefused, errno.EACCES),
    (answer(403, xml("SignatureDoesNotMatch")), StoreRefused, errno.EACCES),
    (answer(401), StoreRefused, errno.EACCES),
    (answer(400, xml("ExpiredToken")), StoreRefused, errno.EACCES),
    (answer(404, xml("NoSuchBucket")), StoreRefused, errno.EACCES),
    (answer(404, "<html>nginx</html>"), StoreRefused, errno.EACCES),
    (answer(507), StoreTransient, errno.ENOSPC),
    (answer(403, xml("QuotaExceeded")), StoreTransient, errno.ENOSPC),
]
"""What a server says -> what a reader gets, what a writer gets (an error, or the number of an OSError)."""


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case[0].split()[1].decode())
def test_each_refusal_is_what_it_is(
    bucket: StoreLocation,
    tmp_path: Path,
    case: tuple[bytes, type[Exception], type[Exception] | int],
) -> None:
    """Take a refusal for a missing object, and a typing error in the name of a bucket costs every checkpoint."""
    said, reading, writing = case
    with unreliable(bucket) as (proxy, place):
        proxy.choose = lambda _method, _target: said
        refuses_all(S3Store(place, IMPATIENT), tmp_path, reading, writing)


def refuses_all(store: S3Store, tmp_path: Path, reading: type[Exception], writing: type[Exception] | int) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.open_range(KEY),
        lambda: store.fetch(KEY, tmp_path / "back"),
        lambda: keys(store),
        store.ping,
    ]
    for call in calls:
        with pytest.raises(reading) as caught:
            call()
        assert SECRET not in str(caught.value)
    with pytest.raises(OSError if isinstance(writing, int) else writing) as refused:
        store.put_file(file(tmp_path, b"abc"), KEY)
    assert getattr(refused.value, "errno", None) == (writing if isinstance(writing, int) else None)
    assert not (tmp_path / "back").exists()


def test_nobody_there(tmp_path: Path, bucket: StoreLocation) -> None:
    store = S3Store(replace(bucket, endpoint="http://127.0.0.1:1"), IMPATIENT)
    for call in (store.ping, lambda: store.size(KEY), lambda: store.put_file(file(tmp_path, b"abc"), KEY)):
        with pytest.raises(StoreTransient, match="no answer"):
            call()


def test_pauses_between_tries_grow_and_are_random(bucket: StoreLocation, monkeypatch: pytest.MonkeyPatch) -> None:
    """The k-th between half and all of 2^k times the first: many workers do not come back in step."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    store = S3Store(replace(bucket, endpoint="http://127.0.0.1:1"), IMPATIENT)
    rounds = []
    for _ in range(2):
        with pytest.raises(StoreTransient):
            store.size(KEY)
        rounds.append([seconds / IMPATIENT.pause_seconds for seconds in slept])
        slept.clear()
    assert len(rounds[0]) == len(rounds[1]) == IMPATIENT.tries - 1
    for pauses in rounds:
        assert all(0.5 * 2**k <= pause <= 2**k for k, pause in enumerate(pauses))
    assert rounds[0] != rounds[1]


def test_a_bucket_that_is_not_there_has_no_missing_objects(bucket: StoreLocation, tmp_path: Path) -> None:
    """Or every checkpoint would be taken for lost, for a typing error in a setting."""
    store = S3Store(replace(bucket, bucket=Bucket("no-such-bucket", "")))
    for call in (store.ping, lambda: store.size(KEY), lambda: store.delete(KEY), lambda: keys(store)):
        with pytest.raises(StoreRefused, match="NoSuchBucket"):
            call()
    with pytest.raises(PermissionError):
        store.put_file(file(tmp_path, b"abc"), KEY)


def test_listings_go_on_page_after_page(bucket: StoreLocation, tmp_path: Path) -> None:
    """And show nothing that is not ours, which nobody could remove by a key."""
    store = S3Store(bucket, replace(HASTY, page_keys=2))
    names = sorted(f"jobs/{letter}/{number}" for letter in "abc" for number in range(3))
    for name in names:
        store.put_file(file(tmp_path, b"abc"), name)
    for foreign in (f"{bucket.bucket.key_prefix}jobs/a/%2520x", "elsewhere/jobs/a/x"):
        url = f"{bucket.endpoint}/{bucket.bucket.name}/{foreign}"
        assert httpx2.put(url, content=b"", trust_env=False).status_code == 200
    assert keys(store) == names
    assert [stored.key for stored in store.list("jobs/b/")] == names[3:6]


def test_a_link_opens_one_object_for_a_while(bucket: StoreLocation, tmp_path: Path) -> None:
    store = S3Store(bucket)
    store.put_file(file(tmp_path, b"abc"), KEY)
    link = store.presigned_url(KEY, 300)
    assert link is not None
    assert httpx2.get(link, trust_env=False).content == b"abc"
    assert httpx2.get(link, headers={"Range": "bytes=1-"}, trust_env=False).content == b"bc"
    assert httpx2.URL(link).params["X-Amz-Expires"] == "300"
    assert SECRET not in link


def test_the_secret_shows_nowhere(bucket: StoreLocation, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    place = replace(bucket, endpoint="http://127.0.0.1:1", token="t0k3n-c4n4ry")  # noqa: S106 - a canary
    store = S3Store(place, IMPATIENT)
    with pytest.raises(StoreTransient) as caught:
        store.size(KEY)
    assert store.remove_unfinished(0.0) == 0
    shown = f"{place!r} {store!r} {store} {vars(store)} {caught.value} {caught.value.__cause__!r} {caplog.text}"
    assert "c4n4ry" not in shown


FORKED = """
import os, sys
from pathlib import Path
from core.store.base import StoreTransient
from core.store.location import Bucket, StoreLocation
from core.store.s3 import S3Store
place = StoreLocation(Bucket("bucket", ""), "http://127.0.0.1:1", "us-east-1", "id", "secret")
store = S3Store(place)
assert "obstore" not in sys.modules
if sys.argv[1] == "used":
    store.presigned_url("jobs/x", 60)
child = os.fork()
if not child:
    try:
        S3Store(place).presigned_url("jobs/x", 60)
    except RuntimeError:
        os._exit(3)
    os._exit(4)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(("before", "code"), [("used", 3), ("untouched", 4)])
def test_a_fork_after_the_first_use_is_refused_and_does_not_hang(before: str, code: int) -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, before],
        env=os.environ | {"PYTHONPATH": str(root)},
        timeout=60,
        check=False,
    )
    assert done.returncode == code


def test_what_vanishes_while_it_is_read_is_missing(bucket: StoreLocation, tmp_path: Path) -> None:
    store = S3Store(bucket)
    store.put_file(file(tmp_path, b"abc"), KEY)
    pieces = store.open_range(KEY)
    store.delete(KEY)
    with pytest.raises(StoreMissing):
        next(iter(pieces))
