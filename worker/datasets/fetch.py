"""Copies a prepared dataset from the store into an empty folder of the cache, verified shard by shard."""

# ruff: noqa: N818 - the names say what happened

import errno
import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from core.recipe.data import Dataset, DataSpec
from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest, ShardFile
from core.settings import Settings
from core.store.base import Digest, Store, StoreMissing, StoreUnreadable
from core.store.keys import dataset_key
from worker.datasets.cache import PreparedCache, read_manifest
from worker.datasets.layout import BadShard, TensorFiles, check_manifest
from worker.runner_user import RunnerUser

log = logging.getLogger(__name__)

TRIES: Final = 2  # a copy that was damaged on its way is fetched again once
RESERVE_BYTES: Final = 64 << 20  # of a disk, which stay free
T = TypeVar("T")
RetryStoreCall = Callable[[Callable[[], T]], T]
"""Does one call of the store, and repeats it while the store is away."""


def prepared_version(data: DataSpec) -> str | None:
    """The version of the prepared dataset that a spec was resolved to; None: it is built in or generated."""
    return data.resolved.version if isinstance(data, Dataset) and data.resolved is not None else None


class DatasetDamaged(Exception):
    """A file of a prepared dataset is missing in the store, or its bytes are not those of the manifest."""


class DatasetFetcher:
    """Fetches one version; `check` is called before each file, and what it raises ends the copy."""

    def __init__(
        self, store: Store, version: str, retry: "RetryStoreCall[Digest]", check: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._version = version
        self._retry = retry
        self._check = check

    def cached(self, settings: Settings, user: RunnerUser | None = None) -> AbstractContextManager[Path]:
        """The folder of the version in the cache of this machine, made where it is missing; see PreparedCache.held.

        Raises what `lay_out` raises.
        """
        cache = PreparedCache(settings.prepared, settings.dataset_cache_bytes, user)
        return cache.held(self._version, self.lay_out, self._check)

    def lay_out(self, folder: Path, make_room: Callable[[int], None]) -> None:
        """Lay the version out in an empty folder.

        Raises:
            DatasetDamaged: the store does not have it as it was written.
            StoreTransient: the store is away.
            OSError: this machine's disk does not take it.
        """
        content = self._fetch_manifest(folder)
        try:
            manifest = read_manifest(content)
            check_manifest(manifest)
            needed = manifest.stored_bytes() + max(shard.bytes for shard in manifest.shards)
            make_room(needed)
            check_disk(folder, needed)
            self._append_shards(folder, manifest, content)
        except (BadShard, ValueError) as error:
            raise DatasetDamaged(f"the dataset {self._version} cannot be read: {error}") from error

    def _fetch_manifest(self, folder: Path) -> bytes:
        path = folder / f".{MANIFEST_FILE}"
        self._fetch_verified(MANIFEST_FILE, path, lambda found: found.sha256 == self._version)
        content = path.read_bytes()
        path.unlink()
        return content

    def _append_shards(self, folder: Path, manifest: DatasetManifest, content: bytes) -> None:
        """Each shard is removed once its rows are copied: the disk holds the data, and one shard more."""
        with TensorFiles(folder, manifest) as files:
            for shard in manifest.shards:
                path = folder / f".{shard.name}"
                wanted = Digest(shard.sha256, shard.bytes)
                self._fetch_verified(shard.name, path, partial(Digest.__eq__, wanted))
                files.append(shard, path)
                path.unlink()
            files.finish(content)

    def _fetch_verified(self, name: str, path: Path, fits: Callable[[Digest], bool]) -> None:
        key = dataset_key(self._version, name)
        for _ in range(TRIES):
            self._check()
            try:
                found = self._retry(partial(self._store.fetch, key, path))
            except StoreMissing as error:
                raise DatasetDamaged(f"{name} of the dataset {self._version} is not in the store any more") from error
            except StoreUnreadable as error:
                raise DatasetDamaged(f"{name} of the dataset {self._version} cannot be read from the store") from error
            if fits(found):
                return
            log.warning("%s does not match its digest", key)
            path.unlink()
        raise DatasetDamaged(f"{name} of the dataset {self._version} does not match its recorded digest")


def check_disk(folder: Path, needed: int) -> None:
    """Raise OSError (ENOSPC) where the disk of a folder has less than `needed` bytes and a reserve."""
    if shutil.disk_usage(folder).free < needed + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed} bytes are needed", str(folder))


def check_shard(shard: ShardFile, path: Path) -> None:
    """Raise BadShard unless the file has the size and the digest of its shard. A link is not followed."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        found = Digest(hashlib.file_digest(file, "sha256").hexdigest(), os.fstat(file.fileno()).st_size)
    if found != Digest(shard.sha256, shard.bytes):
        raise BadShard(f"{shard.name} does not match its digest")


def lay_out_folder(source: Path, manifest: DatasetManifest, target: Path) -> None:
    """Lay out the verified shards in a folder of this machine; `target` is empty.

    Raises:
        BadShard: they are not those of the manifest.
        OSError: this machine's disk does not take it.
    """
    with TensorFiles(target, manifest) as files:
        for shard in manifest.shards:
            files.append(shard, source / shard.name)
        files.finish(manifest.canonical_json())
