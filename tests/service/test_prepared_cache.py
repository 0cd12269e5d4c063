"""The cache of prepared datasets: laid out whole or not at all, shared, bounded, never taken from under an attempt."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from core.recipe.data.manifest import DatasetManifest, ShardFile, TensorShape
from core.store.base import Digest, StoreTransient
from core.store.local import LocalStore
from tests.support.sharded import arrays, store_prepared, write_prepared
from worker.datasets.cache import PreparedCache, folder_bytes
from worker.datasets.fetch import DatasetDamaged, DatasetFetcher
from worker.datasets.layout import BadShard, TensorFiles, check_manifest
from worker.runner_user import RunnerUser

QUOTA = 1 << 30


def nothing() -> None:
    """Nobody interrupts."""


def once(call: Callable[[], Digest]) -> Digest:
    return call()


class Prepared:
    """A store with prepared datasets, and a cache beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = LocalStore(folder / "store")
        self.cache = PreparedCache(folder / "prepared", QUOTA)

    def version(self, seed: int = 0, rows: int = 1000) -> str:
        made = self.folder / f"made-{seed}-{rows}"
        made.mkdir()
        return store_prepared(self.store, made, write_prepared(made, arrays(rows, seed)))

    def held(self, version: str, cache: PreparedCache | None = None) -> AbstractContextManager[Path]:
        fetcher = DatasetFetcher(self.store, version, once)
        return (cache or self.cache).held(version, fetcher.lay_out, nothing)

    def shard(self, version: str, number: int = 1) -> Path:
        return self.folder / "store" / "datasets" / version / f"rows-{number:05d}.safetensors"


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    return Prepared(tmp_path)


def test_shards_lie_end_to_end_in_one_file_for_each_tensor(prepared: Prepared) -> None:
    version = prepared.version()
    with prepared.held(version) as folder:
        found = {path.name: load_file(path) for path in folder.glob("*.safetensors")}
        assert {name: list(each) for name, each in found.items()} == {
            f"{name}.safetensors": [name] for name in ("inputs", "targets", "split")
        }
        for name, array in arrays(1000).items():
            assert np.array_equal(found[f"{name}.safetensors"][name], array)
        assert sorted(path.name for path in folder.iterdir()) == [
            "inputs.safetensors",
            "manifest.json",
            "split.safetensors",
            "targets.safetensors",
        ]
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o440}
        assert DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes()).version() == version


def test_data_begin_where_a_map_is_aligned(prepared: Prepared) -> None:
    with prepared.held(prepared.version()) as folder:
        for path in folder.glob("*.safetensors"):
            assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 64 == 0


def test_it_is_fetched_once(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    version = prepared.version()
    with prepared.held(version):
        pass
    monkeypatch.setattr(prepared.store, "fetch", None)
    with prepared.held(version) as folder:
        assert (folder / "inputs.safetensors").exists()


def test_two_slots_at_once_fetch_it_once_and_never_see_a_half(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, fetched, fetch = prepared.version(rows=4000), list[str](), prepared.store.fetch

    def slowly(key: str, path: Path) -> Digest:
        fetched.append(key)
        time.sleep(0.05)
        return fetch(key, path)

    monkeypatch.setattr(prepared.store, "fetch", slowly)
    seen: list[Any] = []

    def use() -> None:
        with prepared.held(version) as folder:
            seen.append(load_file(folder / "inputs.safetensors")["inputs"].shape)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert seen == [(4000, 3, 2)] * 3
    assert len(fetched) == len(set(fetched)) == 11


def test_what_is_used_longest_ago_goes_first_and_never_what_is_held(prepared: Prepared) -> None:
    versions = [prepared.version(seed) for seed in range(4)]
    with prepared.held(versions[0]) as folder:
        size = folder_bytes(folder)
    small = PreparedCache(prepared.folder / "prepared", 3 * size)
    with prepared.held(versions[1], small):
        pass
    with prepared.held(versions[0], small) as kept, prepared.held(versions[2], small):
        os.utime(prepared.folder / "prepared" / ".locks" / versions[0], (1, 1))  # the oldest, and in use
        with prepared.held(versions[3], small):
            assert kept.exists()
            present = {path.name for path in (prepared.folder / "prepared").glob("[!.]*")}
            assert versions[1] not in present
            assert {versions[0], versions[3]} <= present
    assert folder_bytes(kept) == size


def test_a_quota_smaller_than_the_dataset_does_not_forbid_it(prepared: Prepared) -> None:
    version, other = prepared.version(), prepared.version(1)
    tiny = PreparedCache(prepared.folder / "prepared", 1)
    with prepared.held(version, tiny) as folder:
        assert (folder / "inputs.safetensors").exists()
    with prepared.held(other, tiny):
        assert not folder.exists()


def test_a_shard_that_is_damaged_on_its_way_is_fetched_again(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    version, fetch = prepared.version(), prepared.store.fetch
    damaged: list[str] = []

    def fetch_badly(key: str, path: Path) -> Digest:
        digest = fetch(key, path)
        if "rows-00001" in key and not damaged:
            damaged.append(key)
            return Digest("0" * 64, digest.bytes)
        return digest

    monkeypatch.setattr(prepared.store, "fetch", fetch_badly)
    with prepared.held(version) as folder:
        assert np.array_equal(load_file(folder / "inputs.safetensors")["inputs"], arrays(1000)["inputs"])
    assert damaged


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.write_bytes(bytes(path.stat().st_size)), "does not match its recorded digest"),
        (lambda path: path.unlink(), "is not in the store any more"),
    ],
    ids=["damaged", "missing"],
)
def test_a_shard_that_is_damaged_in_the_store_is_named_and_leaves_nothing(
    prepared: Prepared, harm: Callable[[Path], None], message: str
) -> None:
    version = prepared.version()
    harm(prepared.shard(version))
    found = f"rows-00001.safetensors of the dataset {version} {message}"
    with pytest.raises(DatasetDamaged, match=found), prepared.held(version):
        pass
    assert [path.name for path in (prepared.folder / "prepared").iterdir()] == [".locks"]


def test_a_file_that_was_cut_on_this_disk_is_made_again(prepared: Prepared) -> None:
    version = prepared.version()
    with prepared.held(version) as folder:
        (folder / "inputs.safetensors").chmod(0o640)
        os.truncate(folder / "inputs.safetensors", 100)
    with prepared.held(version) as folder:
        assert np.array_equal(load_file(folder / "inputs.safetensors")["inputs"], arrays(1000)["inputs"])


def test_a_store_that_is_away_leaves_nothing(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    version, fetch = prepared.version(), prepared.store.fetch

    def away(key: str, path: Path) -> Digest:
        if "rows-00002" in key:
            raise StoreTransient("away")
        return fetch(key, path)

    monkeypatch.setattr(prepared.store, "fetch", away)
    with pytest.raises(StoreTransient), prepared.held(version):
        pass
    assert [path.name for path in (prepared.folder / "prepared").iterdir()] == [".locks"]


SLOW_MAKER = """
import sys, time
from pathlib import Path
from worker.datasets.cache import PreparedCache
def make(folder, make_room):
    (folder / "half").write_bytes(b"half")
    print("making", flush=True)
    time.sleep(600)
with PreparedCache(Path(sys.argv[1]), 1 << 30).held(sys.argv[2], make, lambda: None):
    pass
"""


def test_a_maker_that_is_killed_leaves_nothing_that_is_used(prepared: Prepared) -> None:
    version = prepared.version()
    command = [sys.executable, "-c", SLOW_MAKER, str(prepared.folder / "prepared"), version]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        assert maker.stdout.readline() == b"making\n"
        with pytest.raises(TimeoutError), PreparedCache(prepared.folder / "prepared", QUOTA).held(version, _no, _late):
            pass
        maker.send_signal(signal.SIGKILL)
    assert (prepared.folder / "prepared" / f".making-{version}" / "half").exists()
    with prepared.held(prepared.version(1)):  # whoever needs room removes it
        assert not (prepared.folder / "prepared" / f".making-{version}").exists()
    with prepared.held(version) as folder:
        assert not (folder / "half").exists()


def _late() -> None:
    """Somebody wants the wait to end."""
    raise TimeoutError


def _no(_folder: Path, _make_room: Callable[[int], None]) -> None:
    raise AssertionError("two make the same version")


def test_runners_of_another_user_may_read_it(prepared: Prepared) -> None:
    user = RunnerUser(os.getuid(), os.getgid(), "/")
    cache = PreparedCache(prepared.folder / "prepared", QUOTA, user)
    with prepared.held(prepared.version(), cache) as folder:
        assert folder.stat().st_mode & 0o7777 == folder.parent.stat().st_mode & 0o7777 == 0o2710
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o440}


def test_a_disk_without_room_is_noticed_before_a_shard_is_fetched(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = prepared.version()
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OSError, match="No space left"), prepared.held(version):
        pass
    assert [path.name for path in (prepared.folder / "prepared").iterdir()] == [".locks"]


def changed(manifest: DatasetManifest, **fields: Any) -> DatasetManifest:
    return manifest.model_copy(update=fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: {"shards": (found.shards[0].model_copy(update={"name": "../x.safetensors"}), *found.shards[1:])},
        lambda found: {"shards": (found.shards[0], *found.shards)},
        lambda found: {"shards": found.shards[:-1]},
        lambda found: {"tensors": {"../evil": found.tensors["inputs"]}},
        lambda _: {"tensors": {"inputs": TensorShape(dtype="F64", shape=(1000,))}},
        lambda _: {"tensors": {"inputs": TensorShape(dtype="F32", shape=())}},
        lambda _: {"tensors": {"inputs": TensorShape(dtype="F32", shape=(999,))}},
        lambda _: {"shards": (ShardFile(name="a.safetensors", rows=-1, bytes=1, sha256=""),)},
        lambda _: {"shards": ()},
    ],
)
def test_a_manifest_that_lies_is_refused(tmp_path: Path, change: Callable[[DatasetManifest], dict[str, Any]]) -> None:
    manifest = write_prepared(tmp_path, arrays(1000))
    check_manifest(manifest)
    with pytest.raises(BadShard):
        check_manifest(changed(manifest, **change(manifest)))


HEADERS = [
    b"",
    (1 << 62).to_bytes(8, "little") + b"{}",
    (2).to_bytes(8, "little") + b"[]",
    (2).to_bytes(8, "little") + b"{}",
    (72).to_bytes(8, "little") + b'{"inputs":{"dtype":"F32","shape":[400,3,2],"data_offsets":[0,9600000000]}}',
    (66).to_bytes(8, "little") + b'{"inputs":{"dtype":"F32","shape":[400,3,2],"data_offsets":[-8,0]}}',
]


@pytest.mark.parametrize("content", HEADERS)
def test_a_shard_that_lies_is_refused(tmp_path: Path, content: bytes) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    manifest = write_prepared(source, arrays(1000))
    (source / "rows-00000.safetensors").write_bytes(content)
    with TensorFiles(target, manifest) as files, pytest.raises(BadShard):
        files.append(manifest.shards[0], source / "rows-00000.safetensors")


def test_an_interrupt_ends_the_copy(prepared: Prepared) -> None:
    version, asked = prepared.version(), list[int]()

    def interrupt() -> None:
        asked.append(1)
        if len(asked) > 2:
            raise KeyboardInterrupt

    fetcher = DatasetFetcher(prepared.store, version, once, interrupt)
    with pytest.raises(KeyboardInterrupt), prepared.cache.held(version, fetcher.lay_out, partial(nothing)):
        pass
    assert [path.name for path in (prepared.folder / "prepared").iterdir()] == [".locks"]
