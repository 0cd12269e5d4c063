"""The bytes of an upload as one unlinked file of this machine, verified: what a prepare process may read."""

# ruff: noqa: N818 - the names say what happened

import errno
import hashlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.jobs.datasets.rows import DatasetRow, UploadPiece
from core.store.base import Store, StoreMissing, StoreUnreadable
from worker.datasets.fetch import check_disk

TRIES: Final = 2  # a piece that was damaged on its way is read again once
COPY_BYTES: Final = 4 << 20


class SourceGone(Exception):
    """The bytes of the upload cannot be had any more, or not as they were sent."""


class SourceRefused(Exception):
    """The bytes are not those that were announced; `problem` is an entry of the dataset's errors."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = {"code": code, "detail": detail, "file": None, "row": None, "column": None}


def open_unlinked(folder: Path) -> tuple[int, int]:
    """A new file without a name, as two descriptors: one to write, one that can only read."""
    path = folder / "source"
    writer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(writer)
        raise
    finally:
        path.unlink()
    return writer, reader


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
    """The file below one of the operator's folders that the dataset names, copied, so that it cannot change meanwhile.

    Raises:
        SourceGone: there is no such file.
        OSError: this machine's disk does not take it.
    """
    path = find_reference(row.source or {}, roots)
    try:
        given = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise SourceGone(f"the file of the dataset cannot be opened: {error.strerror}") from error
    with os.fdopen(given, "rb") as file:
        check_disk(folder, os.fstat(given).st_size)
        writer, reader = open_unlinked(folder)
        digest, at = hashlib.sha256(), 0
        try:
            for part in iter(partial(file.read, COPY_BYTES), b""):
                check()
                write_at(writer, part, at)
                digest.update(part)
                at += len(part)
            _check_announced(row, digest.hexdigest())
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
    return reader


def find_reference(source: dict[str, Any], roots: Sequence[Path]) -> Path:
    """The file that a source {kind: folder, path} names below one of the roots; no link leads out of them.

    Raises:
        SourceGone: there is none.
    """
    given = source.get("path")
    if source.get("kind") == "folder" and isinstance(given, str):
        for root in roots:
            top, path = root.resolve(), (root / given).resolve()
            if path.is_file() and path.is_relative_to(top):
                return path
    raise SourceGone("the file of the dataset is in none of the folders that this worker may read")


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
