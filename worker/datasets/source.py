"""The bytes of an upload as one unlinked file of this machine, verified: what a prepare process may read."""

# ruff: noqa: N818 - the names say what happened

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from core.errors import InvalidSpec
from core.jobs.datasets.rows import DatasetRow, UploadPiece
from core.jobs.datasets.sources import resolve_folder_source
from core.store.base import Store, StoreMissing, StoreUnreadable
from worker.datasets.fetch import check_disk
from worker.datasets.folder_tar import UnusableFolder, content_state, folder_bytes, write_folder_tar
from worker.datasets.unlinked import open_unlinked

TRIES: Final = 2  # a piece that was damaged on its way is read again once
COPY_BYTES: Final = 4 << 20


class SourceGone(Exception):
    """The bytes of the upload cannot be had any more, or not as they were sent."""


class SourceRefused(Exception):
    """The bytes are not those that were announced; `problem` is an entry of the dataset's errors."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = {"code": code, "detail": detail, "file": None, "row": None, "column": None}


class SourceWriter:
    """Writes the bytes of one upload into a file, and checks their digest; `check` is called between the pieces."""

    def __init__(
        self, store: Store, retry: Callable[[Callable[[], Any]], Any], check: Callable[[], None], folder: Path
    ) -> None:
        """`folder` has room for the file. `retry` does one call of the store, and repeats it while it is away."""
        self._store = store
        self._retry = retry
        self._check = check
        self._folder = folder

    def write(self, row: DatasetRow, pieces: Sequence[UploadPiece]) -> int:
        """All pieces end to end; the descriptor of the file, opened for reading only.

        Raises:
            SourceRefused: the digest is not the announced one.
            SourceGone: a piece is missing or damaged.
            StoreTransient: the store is away.
            OSError: this machine's disk does not take it.
        """
        total = row.received
        if sum(piece.bytes for piece in pieces) != total or total == 0:
            raise SourceGone("the uploaded bytes are gone: they are kept for a day")
        check_disk(self._folder, total)
        writer, reader = open_unlinked(self._folder)
        try:
            digest = hashlib.sha256()
            for piece in pieces:
                digest = self._write_verified(writer, piece, digest)
            _check_announced(row, digest.hexdigest())
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return reader

    def _write_verified(self, writer: int, piece: UploadPiece, before: "hashlib._Hash") -> "hashlib._Hash":
        """Write one piece at its offset; the digest of everything up to its end."""
        for _ in range(TRIES):
            self._check()
            try:
                found: str | None
                whole: hashlib._Hash
                found, whole = self._retry(partial(self._write_once, writer, piece, before))
            except (StoreMissing, StoreUnreadable) as error:
                raise SourceGone(f"the uploaded bytes from {piece.offset} on cannot be read any more") from error
            if found in {piece.sha256, None}:
                return whole
        raise SourceGone(f"the uploaded bytes from {piece.offset} on are damaged in the store")

    def _write_once(
        self, writer: int, piece: UploadPiece, before: "hashlib._Hash"
    ) -> tuple[str | None, "hashlib._Hash"]:
        """(SHA-256 of the piece, None where its row has none; digest of everything up to its end)"""
        whole, own, at = before.copy(), hashlib.sha256(), piece.offset
        for part in self._store.open_range(piece.key):
            write_at(writer, part, at)
            whole.update(part)
            own.update(part)
            at += len(part)
        if at - piece.offset != piece.bytes:
            return "", whole  # of another length: no digest fits
        return (None if piece.sha256 is None else own.hexdigest()), whole


def copy_reference(row: DatasetRow, roots: Sequence[Path], folder: Path, check: Callable[[], None]) -> int:
    """The file below one of the operator's folders that the dataset names, or a folder there as a tar, copied, so that
    it cannot change meanwhile; the descriptor of the copy, opened for reading only.

    Raises:
        SourceGone: there is none, or it cannot be read, or it was changed meanwhile.
        OSError: this machine's disk does not take it.
    """
    path = find_reference(row.source or {}, roots)
    check_disk(folder, _measure_path(path))
    writer, reader = open_unlinked(folder)
    try:
        with os.fdopen(writer, "w+b") as copy:
            _copy_path(path, copy, check)
            copy.seek(0)
            _check_announced(row, hashlib.file_digest(copy, "sha256").hexdigest())
    except BaseException:
        os.close(reader)
        raise
    return reader


def find_reference(source: dict[str, Any], roots: Sequence[Path]) -> Path:
    """The file or folder that a source {kind: folder, path} names below one of the roots; no link leads out of them.

    Raises:
        SourceGone: there is none.
    """
    given = source.get("path")
    if source.get("kind") != "folder" or not isinstance(given, str):
        raise SourceGone("this release cannot read the place of the dataset")
    try:
        return resolve_folder_source(roots, given)
    except InvalidSpec as error:
        raise SourceGone(f"the worker does not find it: {error.errors[0].message}") from error


def _measure_path(path: Path) -> int:
    try:
        return folder_bytes(path) if path.is_dir() else path.stat().st_size
    except (UnusableFolder, FileNotFoundError, PermissionError) as error:
        raise SourceGone(f"the data cannot be read: {error}") from error


def _copy_path(path: Path, copy: BinaryIO, check: Callable[[], None]) -> None:
    """Copy a file, or a folder as a tar."""
    try:
        if path.is_dir():
            write_folder_tar(path, copy, check)
            return
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    except (UnusableFolder, FileNotFoundError, PermissionError) as error:
        raise SourceGone(f"the data cannot be read: {error}") from error
    with file:
        before = content_state(file.fileno())
        for part in iter(partial(file.read, COPY_BYTES), b""):
            check()
            copy.write(part)
        if content_state(file.fileno()) != before:
            raise SourceGone("the file was changed while it was read; try again when it is complete")


def _check_announced(row: DatasetRow, found: str) -> None:
    if row.sha256 is not None and row.sha256 != found:
        raise SourceRefused("wrong_digest", f"The content has the SHA-256 {found}, and {row.sha256} was announced.")


def write_at(fd: int, data: bytes, offset: int) -> None:
    """Write all of it at an offset. Raises OSError where the disk takes no more."""
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        if count == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view, offset = view[count:], offset + count
