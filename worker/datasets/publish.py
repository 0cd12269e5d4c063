"""Puts the output of a prepare process into the store: shards first, manifest.json last. What is there stays."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from core.store.base import Store, StoreMissing
from core.store.keys import dataset_key
from worker.datasets.cache import read_manifest
from worker.datasets.fetch import check_shard
from worker.datasets.layout import BadShard, check_manifest

MANIFEST_BYTES: Final = 256 << 20


def read_output(folder: Path) -> DatasetManifest:
    """The manifest of a folder that a prepare process has written; every shard has the size and digest that it says.

    Raises:
        BadShard: the folder does not hold what it says. The process is at fault.
        OSError: this machine's disk cannot be read.
    """
    try:
        fd = os.open(folder / MANIFEST_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise BadShard("there is no manifest") from error
    with os.fdopen(fd, "rb") as file:
        if os.fstat(fd).st_size > MANIFEST_BYTES:
            raise BadShard("the manifest is too long")
        content = file.read()
    try:
        manifest = read_manifest(content)
    except ValueError as error:
        raise BadShard("the manifest cannot be read") from error
    if manifest.canonical_json() != content:
        raise BadShard("the manifest is not in its canonical form")
    check_manifest(manifest)
    for shard in manifest.shards:
        try:
            check_shard(shard, folder / shard.name)
        except FileNotFoundError as error:
            raise BadShard(f"{shard.name} is missing") from error
    return manifest


class DatasetPublisher:
    """Stores one version. `retry` does one call of the store, and repeats it while the store is away; `check` is called
    before each file, and what it raises ends the upload.
    """

    def __init__(
        self, store: Store, retry: Callable[[Callable[[], Any]], Any], check: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._retry = retry
        self._check = check

    def publish(self, folder: Path, manifest: DatasetManifest) -> None:
        """Store every file that is not there. The same version has the same bytes, so nothing is ever overwritten.

        Raises:
            StoreTaken: other bytes are stored under the key of a file.
            StoreTransient: the store is away.
            OSError: the store is full, or a file cannot be read.
        """
        version = manifest.version()
        for shard in manifest.shards:
            self._put(folder / shard.name, dataset_key(version, shard.name), shard.bytes)
        self._put(folder / MANIFEST_FILE, dataset_key(version, MANIFEST_FILE), len(manifest.canonical_json()))

    def _put(self, path: Path, key: str, size: int) -> None:
        self._check()
        if self._retry(partial(self._stored_bytes, key)) != size:
            self._retry(partial(self._store.put_file, path, key))

    def _stored_bytes(self, key: str) -> int | None:
        try:
            return self._store.size(key)
        except StoreMissing:
            return None
