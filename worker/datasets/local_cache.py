"""Files of this machine, prepared once: `basin run` keeps the result by the digest of the file and how it is read."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Final, cast

from core.recipe.data.manifest import MANIFEST_FILE, DatasetManifest
from core.recipe.prepare import PrepareSpec
from core.settings import Settings
from worker.datasets.cache import PreparedCache, folder_bytes, read_manifest
from worker.datasets.fetch import check_disk
from worker.datasets.folder_tar import UnusableFolder, write_folder_tar
from worker.datasets.local import (
    FileRefused,
    OnProgress,
    PrepareFailed,
    ignore_progress,
    prepare_local,
    unusable_folder,
)

BLOCK: Final = 1 << 20
FOLDER: Final = "local"
"""The cache's folder below that of the datasets."""
ReportRead = Callable[[int], None]
"""Receives how many bytes have been read."""


@contextmanager
def held_local(
    path: Path,
    spec: PrepareSpec,
    settings: Settings,
    *,
    on_read: ReportRead = lambda _: None,
    on_progress: OnProgress = ignore_progress,
) -> Iterator[tuple[Path, DatasetManifest]]:
    """The folder of the prepared file or folder, and its manifest; it stays as long as the context.

    It is prepared unless this was done before with the same content, options and release.

    Raises:
        FileRefused: the file is bad.
        PrepareFailed: this machine failed, or the file changed meanwhile.
        OSError: the file cannot be read, or the disk does not take the result.
    """
    digest, size = digest_source(path, on_read)
    cache = PreparedCache(settings.datasets / FOLDER, settings.dataset_cache_bytes)

    def make(folder: Path, make_room: Callable[[int], None]) -> None:
        make_room(size)
        check_disk(folder, size)
        out = folder / "out"
        out.mkdir()
        manifest = prepare_local(path, spec, out, on_progress, confinement=settings.prepare_confined)
        if manifest.source_sha256 != digest:
            raise PrepareFailed(f"{path} was changed while it was read; start again")
        for file in out.iterdir():
            file.rename(folder / file.name)
        out.rmdir()
        make_room(0)  # this version counts among those that are being made

    with cache.held(preparation_key(digest, spec), make, lambda: None) as folder:
        yield folder, read_manifest((folder / MANIFEST_FILE).read_bytes())


def preparation_key(digest: str, spec: PrepareSpec) -> str:
    """The name of a prepared content: SHA-256 of all that determines the result. Another release may read otherwise."""
    read_as = spec.model_dump(mode="json", include={"format", "options", "filename"})
    document = {"content": digest, "release": metadata.version("basin-server"), **read_as}
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def digest_source(path: Path, on_read: ReportRead = lambda _: None) -> tuple[str, int]:
    """The SHA-256 in hex and the bytes of a file, or of the tar of a folder.

    Raises:
        FileRefused: the folder has a symbolic link, or no file.
        OSError: something cannot be read.
    """
    sink = HashingSink(on_read)
    if path.is_dir():
        try:
            write_folder_tar(path, cast(IO[bytes], sink))
        except UnusableFolder as error:
            raise FileRefused([unusable_folder(error)]) from error
    else:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                sink.write(block)
    return sink.digest.hexdigest(), sink.bytes


class HashingSink:
    """A file for writing of which only the digest and the size are kept."""

    def __init__(self, on_write: ReportRead) -> None:
        self.digest = hashlib.sha256()
        self.bytes = 0
        self._on_write = on_write

    def write(self, block: bytes) -> int:
        self.digest.update(block)
        self.bytes += len(block)
        self._on_write(self.bytes)
        return len(block)

    def tell(self) -> int:
        return self.bytes


def source_bytes(path: Path) -> int:
    """The bytes of a file, or of the files directly in a folder: for the bar, which may be wrong."""
    return folder_bytes(path) if path.is_dir() else path.stat().st_size
