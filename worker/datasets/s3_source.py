"""The bytes of a dataset that an operator's bucket holds, copied into an unlinked file of this machine."""

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from core.errors import InvalidSpec
from core.jobs.datasets.rows import DatasetRow
from core.settings import Settings
from core.store.base import StoreMissing, StoreRefused
from core.store.bucket_reader import BucketReader
from core.store.location import StoreLocation
from core.store.profiles import find_s3_source, read_profiles
from worker.datasets.fetch import check_disk
from worker.datasets.source import SourceGone
from worker.datasets.unlinked import open_unlinked


def copy_s3_source(row: DatasetRow, settings: Settings, folder: Path, check: Callable[[], None]) -> int:
    """An object, or the objects below a folder as a tar; the descriptor of the copy, opened for reading only.

    Raises:
        SourceGone: there is no such profile here, nothing is there, or the bucket refuses.
        StoreTransient: the bucket is away.
        OSError: this machine's disk does not take it.
    """
    place, key = find_place(row.source or {}, settings)
    reader = BucketReader(place)
    try:
        objects = reader.list_folder(key) if key.endswith("/") else [(key, reader.size_of(key))]
    except (StoreMissing, StoreRefused) as error:
        raise SourceGone(f"the data cannot be read: {error.message}") from error
    objects = [(name, size) for name, size in objects if not _is_hidden(name.removeprefix(key))]
    if not objects:
        raise SourceGone("there is no object in this folder of the bucket")
    check_disk(folder, sum(size for _, size in objects))
    writer, source = open_unlinked(folder)
    try:
        with os.fdopen(writer, "wb") as copy:
            if key.endswith("/"):
                _copy_folder(reader, key, objects, copy, check)
            else:
                _copy_object(reader, *objects[0], copy, check)
    except (StoreMissing, StoreRefused) as error:
        os.close(source)
        raise SourceGone(f"the data cannot be read: {error.message}") from error
    except BaseException:
        os.close(source)
        raise
    return source


def find_place(source: dict[str, Any], settings: Settings) -> tuple[StoreLocation, str]:
    """The bucket and the key that a source {kind: s3, profile, url} names. Raises SourceGone."""
    try:
        return find_s3_source(read_profiles(settings), str(source.get("profile")), str(source.get("url")))
    except InvalidSpec as error:
        raise SourceGone(f"the worker does not find it: {error.errors[0].message}") from error


def _is_hidden(name: str) -> bool:
    """Whether it is a hidden file, or the marker of a folder."""
    return name.endswith("/") or any(part.startswith(".") for part in name.split("/"))


def _copy_object(reader: BucketReader, key: str, size: int, copy: BinaryIO, check: Callable[[], None]) -> None:
    for piece in reader.read_object(key, size):
        check()
        copy.write(piece)


def _copy_folder(
    reader: BucketReader, folder: str, objects: list[tuple[str, int]], copy: BinaryIO, check: Callable[[], None]
) -> None:
    """The same tar that a folder of this machine with these files gives."""
    with tarfile.open(fileobj=copy, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for key, size in objects:
            entry = tarfile.TarInfo(PurePosixPath(key.removeprefix(folder)).as_posix())
            entry.size = size
            archive.addfile(entry, io.BufferedReader(_ObjectFile(reader, key, size, check)))


class _ObjectFile(io.RawIOBase):
    """One object as a file that is read from front to end."""

    def __init__(self, reader: BucketReader, key: str, size: int, check: Callable[[], None]) -> None:
        super().__init__()
        self._pieces = reader.read_object(key, size)
        self._check = check
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._check()
            self._rest = memoryview(next(self._pieces, b""))
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
