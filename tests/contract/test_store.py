"""What every object store must do. A new store joins by a fixture and its name in STORES."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import Misconfigured
from core.settings import Settings
from core.store import open_store
from core.store.base import Digest, InvalidStoreKey, Store, StoreMissing, StoreTaken, StoreTransient, StoreUnreadable
from core.store.keys import checkpoint_prefix, folder_of
from core.store.local import LocalStore
from core.store.location import StoreLocation
from core.store.s3 import S3Store
from tests.support.service import ROOT

STORES = ["local", "s3"]


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def s3(bucket: StoreLocation) -> Store:
    return S3Store(bucket)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store:
    made: Store = request.getfixturevalue(request.param)
    return made


def file(folder: Path, content: bytes) -> Path:
    path = folder / "source.bin"
    path.write_bytes(content)
    return path


def keys(store: Store, prefix: str) -> list[str]:
    return [stored.key for stored in store.list(prefix)]


BIG = bytes(range(256)) * 10_000  # 2.56 MB, more than one piece
ABC = Digest("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3)  # FIPS 180-2, appendix B.1


def test_what_is_put_comes_back(store: Store, tmp_path: Path) -> None:
    assert store.put_file(file(tmp_path, b"abc"), "jobs/j/1-2-a/weights.safetensors") == ABC
    assert store.size("jobs/j/1-2-a/weights.safetensors") == 3
    assert store.fetch("jobs/j/1-2-a/weights.safetensors", tmp_path / "back") == ABC
    assert (tmp_path / "back").read_bytes() == b"abc"


def test_an_empty_object_is_an_object(store: Store, tmp_path: Path) -> None:
    assert store.put_file(file(tmp_path, b""), "jobs/empty") == Digest(hashlib.sha256().hexdigest(), 0)
    assert b"".join(store.open_range("jobs/empty")) == b""
    assert keys(store, "jobs/") == ["jobs/empty"]


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, None), (0, 0), (0, 1), (5, 10), (2_559_999, None), (2_559_999, 9_999_999), (9_999_999, None), (7, 3)],
)
def test_ranges_are_half_open(store: Store, tmp_path: Path, start: int, end: int | None) -> None:
    store.put_file(file(tmp_path, BIG), "jobs/big")
    assert b"".join(store.open_range("jobs/big", start, end)) == BIG[start:end]


def test_keys_are_never_reused(store: Store, tmp_path: Path) -> None:
    """Yet the same bytes may be put again: the answer to the first call may have been lost."""
    store.put_file(file(tmp_path, b"abc"), "jobs/x")
    assert store.put_file(file(tmp_path, b"abc"), "jobs/x") == ABC
    with pytest.raises(StoreTaken):
        store.put_file(file(tmp_path, b"abd"), "jobs/x")
    assert b"".join(store.open_range("jobs/x")) == b"abc"


def test_what_is_not_there_is_missing(store: Store, tmp_path: Path) -> None:
    for call in (
        lambda: store.size("jobs/no"),
        lambda: store.fetch("jobs/no", tmp_path / "back"),
        lambda: store.open_range("jobs/no"),
    ):
        with pytest.raises(StoreMissing):
            call()
    assert list(tmp_path.glob("*back*")) == []
    store.delete("jobs/no")
    assert keys(store, "jobs/") == []


def test_a_source_that_is_not_there_is_no_fault_of_the_store(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put_file(tmp_path / "nothing", "jobs/x")
    assert keys(store, "jobs/") == []


def test_listings_are_sorted_folder_by_folder(store: Store, tmp_path: Path) -> None:
    before = time.time()
    for key in ("jobs/b/1/x", "jobs/a/2/y", "jobs/a/2/x", "jobs/a/10/x", "other/z"):
        store.put_file(file(tmp_path, b"abc"), key)
    assert keys(store, "jobs/a/") == ["jobs/a/10/x", "jobs/a/2/x", "jobs/a/2/y"]
    assert keys(store, "jobs/") == ["jobs/a/10/x", "jobs/a/2/x", "jobs/a/2/y", "jobs/b/1/x"]
    assert keys(store, "jobs/a/1") == ["jobs/a/10/x"]
    assert keys(store, "") == [*keys(store, "jobs/"), "other/z"]
    first = next(iter(store.list("jobs/")))
    assert first.bytes == 3
    assert first.modified_at == pytest.approx(before, abs=10.0)


def test_deleting_makes_room_for_the_next(store: Store, tmp_path: Path) -> None:
    store.put_file(file(tmp_path, b"abc"), "jobs/a/1/x")
    store.put_file(file(tmp_path, b"abc"), "jobs/a/1/y")
    store.delete("jobs/a/1/x")
    assert keys(store, "jobs/") == ["jobs/a/1/y"]
    store.delete("jobs/a/1/y")
    assert keys(store, "jobs/") == []
    store.put_file(file(tmp_path, b"abc"), "jobs/a/1/z")
    assert keys(store, "jobs/") == ["jobs/a/1/z"]


@pytest.mark.parametrize(
    "key",
    [
        *("", "/", "/etc/passwd", "..", "../x", "jobs/../../x", "jobs/./x", "jobs//x", "jobs/", ".incoming/x", "a/.b"),
        *("jobs\\x", "jobs/%2e%2e/x", "jobs/x#y", "jobs/x?y", "jobs/x\0", "jobs/x\n", "jobs/é", "a b", "a" * 200),
        "/".join("abcdefghi"),
    ],
)
def test_strange_keys_are_refused_everywhere(store: Store, tmp_path: Path, key: str) -> None:
    for call in (
        lambda: store.put_file(file(tmp_path, b"abc"), key),
        lambda: store.fetch(key, tmp_path / "back"),
        lambda: store.open_range(key),
        lambda: store.size(key),
        lambda: store.delete(key),
        lambda: store.presigned_url(key, 60),
    ):
        with pytest.raises(InvalidStoreKey):
            call()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "store") == ["source.bin"]


def test_unfinished_uploads_are_removed_when_they_are_old(store: Store) -> None:
    assert store.remove_unfinished(0.0) == 0


def test_a_store_that_works_answers_a_ping(store: Store) -> None:
    store.ping()


def test_many_writers_at_once(store: Store, tmp_path: Path) -> None:
    """Folders come and go under each other's feet."""
    source = file(tmp_path, b"abc")

    def one(number: int) -> None:
        for turn in range(10):
            key = f"jobs/shared/{turn % 2}/{number}-{turn}"
            store.put_file(source, key)
            store.delete(key)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(4)))
    assert keys(store, "jobs/") == []


def test_local_an_upload_that_died_is_never_an_object(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put_file(file(tmp_path, b"abc"), "jobs/x")
    torn = tmp_path / "store" / ".incoming" / "torn"
    torn.write_bytes(b"ab")
    assert keys(store, "") == ["jobs/x"]
    assert store.remove_unfinished(3600.0) == 0
    os.utime(torn, (1.0, 1.0))
    assert store.remove_unfinished(3600.0) == 1
    assert not torn.exists()


def test_local_what_cannot_be_read_is_no_passing_trouble(tmp_path: Path) -> None:
    """And a target that cannot be written is not the object's fault."""
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store" / "jobs" / "x").mkdir(parents=True)
    (tmp_path / "store" / "jobs" / "loop").symlink_to("loop")
    for key in ("jobs/x", "jobs/loop"):
        with pytest.raises(StoreUnreadable):
            store.fetch(key, tmp_path / "back")
    store.put_file(file(tmp_path, b"abc"), "jobs/y")
    with pytest.raises(FileNotFoundError):
        store.fetch("jobs/y", tmp_path / "nowhere" / "back")


BARRED = """
import os, sys
from pathlib import Path
from core.store.base import BasinError
from core.store.local import LocalStore

root, nobody = Path(sys.argv[1]), 65534
store = LocalStore(root / "store")
if os.getuid() == 0:
    os.setgid(nobody)
    os.setuid(nobody)
for call in (
    lambda: store.size("jobs/x"),
    lambda: store.fetch("jobs/x", root / "back"),
    lambda: store.open_range("jobs/x"),
    lambda: list(store.list("jobs/")),
    lambda: store.put_file(root / "source.bin", "jobs/y"),
):
    try:
        call()
        print("done")
    except (BasinError, OSError) as error:
        print(type(error).__name__)
"""


@pytest.fixture
def for_others() -> Iterator[Path]:
    """A folder that any user may enter and read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    ("barred", "said"),
    [
        ("store", ["StoreTransient"] * 5),
        ("store/jobs", ["StoreTransient"] * 5),
        ("store/jobs/x", ["done", *["StoreUnreadable"] * 2, "done", "PermissionError"]),
    ],
)
def test_local_a_folder_that_lets_nobody_through_is_away(for_others: Path, barred: str, said: list[str]) -> None:
    """Only an object that is itself barred cannot be read. A folder that may be read and not written refuses."""
    store = LocalStore(for_others / "store")
    store.put_file(file(for_others, b"abc"), "jobs/x")
    for path in (for_others / "store").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (for_others / "store").chmod(0o555)
    (for_others / barred).chmod(0o000)
    done = subprocess.run(
        [sys.executable, "-c", BARRED, for_others],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    (for_others / barred).chmod(0o755)
    assert done.stdout.split() == said, done.stderr


def test_local_a_file_in_the_place_of_a_folder_is_away(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put_file(file(tmp_path, b"abc"), "jobs/a/x")
    for folder in (tmp_path / "store" / "jobs", tmp_path / "store"):
        shutil.rmtree(folder)
        folder.write_bytes(b"")
        for call in (
            lambda: store.size("jobs/a/x"),
            lambda: store.fetch("jobs/a/x", tmp_path / "back"),
            lambda: store.put_file(tmp_path / "source.bin", "jobs/a/y"),
            lambda: list(store.list("jobs/a/")),
            lambda: store.delete("jobs/a/x"),
        ):
            with pytest.raises(StoreTransient):
                call()


def test_local_the_first_of_two_writers_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its rename the second one does not see the first."""
    store = LocalStore(tmp_path / "store")
    store.put_file(file(tmp_path, b"abc"), "jobs/x")
    monkeypatch.setattr(Path, "exists", lambda path: path.name != "x" and os.path.exists(path))  # noqa: PTH110
    with pytest.raises(StoreTaken):
        store.put_file(file(tmp_path, b"abd"), "jobs/x")
    assert store.put_file(file(tmp_path, b"abc"), "jobs/x") == ABC
    assert b"".join(store.open_range("jobs/x")) == b"abc"


def test_local_links_do_not_lead_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    store.put_file(file(tmp_path, b"abc"), "jobs/x")
    (tmp_path / "store" / "jobs" / "out").symlink_to(tmp_path)
    with pytest.raises(InvalidStoreKey):
        store.size("jobs/out/source.bin")


def test_checkpoint_keys_are_fresh_at_every_call() -> None:
    made = {checkpoint_prefix("job_a", 2, 300) for _ in range(100)}
    assert len(made) == 100
    assert all(key.startswith("jobs/job_a/2-300-") for key in made)
    assert folder_of("jobs/job_a/2-300-ff/weights.safetensors") == "jobs/job_a/2-300-ff"


def test_the_settings_choose_the_store(tmp_path: Path) -> None:
    open_store(Settings(home=tmp_path)).put_file(file(tmp_path, b"abc"), "jobs/x")
    assert (tmp_path / "store" / "jobs" / "x").read_bytes() == b"abc"
    spaced = Settings.model_validate({"home": tmp_path, "store_url": (tmp_path / "my store").as_uri()})
    open_store(spaced).put_file(file(tmp_path, b"abc"), "jobs/x")
    assert (tmp_path / "my store" / "jobs" / "x").read_bytes() == b"abc"
    with pytest.raises(Misconfigured):
        open_store(Settings.model_validate({"home": tmp_path, "store_url": "ftp://host/x"}))
