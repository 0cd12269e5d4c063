"""Objects as files in a folder: written to a temporary file, hashed, synced, linked to the name, the folder synced."""

import errno
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from core.durable import sync_folder
from core.store.base import (
    Digest,
    InvalidStoreKey,
    StoredObject,
    StoreMissing,
    StoreTaken,
    StoreTransient,
    StoreUnreadable,
)
from core.store.keys import check_key

_PIECE: Final = 1 << 20
# Full, over quota, read-only, no permission: these are not transient.
_REFUSALS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})
# A file system without hard links: a rename is used there, which cannot detect an object written at the same moment.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
# Errors that the object or a folder above it may cause.
_BARRED: Final = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP})
# A bad sector, no permission, no regular file: the next read would fail too.
_UNREADABLE: Final = frozenset({errno.EIO, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP})
# Keys cannot begin with a dot, so that unfinished uploads are never listed as objects.
_INCOMING: Final = ".incoming"
_TRIES: Final = 20


def folder_of_url(url: str) -> Path | None:
    """The folder that a file URL or an absolute path names; None for anything else."""
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in {"", "localhost"} and parts.path:
        return Path(unquote(parts.path))
    return Path(url) if url.startswith("/") else None


class LocalStore:
    """A Store in a folder of a local disk, shared by the processes of one machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING

    def put_file(self, path: Path, key: str) -> Digest:
        if not path.is_file():
            raise FileNotFoundError(path)
        with path.open("rb") as reader:
            return self._put_pieces(iter(lambda: reader.read(_PIECE), b""), key)

    def put_bytes(self, content: bytes, key: str) -> Digest:
        return self._put_pieces([content], key)

    def _put_pieces(self, pieces: Iterable[bytes], key: str) -> Digest:
        target = self._object_path(key)
        with _translate_errors(key, target, writing=True):
            self._incoming.mkdir(parents=True, exist_ok=True)
            aside = self._incoming / secrets.token_hex(16)
            try:
                digest = _write_pieces(pieces, aside)
                if target.exists() or not _publish_file(aside, target, self._root):
                    return _check_digest(target, digest, key)
            finally:
                aside.unlink(missing_ok=True)
        return digest

    def fetch(self, key: str, path: Path) -> Digest:
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with _translate_errors(key, self._root / key):
            source = self._object_path(key).open("rb")
        with source:
            try:
                digest = _write_pieces(_read_pieces(source, key, 0, None), aside)
                aside.rename(path)
            finally:
                aside.unlink(missing_ok=True)
        return digest

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with _translate_errors(key, self._root / key):
            file = self._object_path(key).open("rb")
        return _read_pieces(file, key, start, end)

    def size(self, key: str) -> int:
        with _translate_errors(key, self._root / key):
            return self._object_path(key).stat().st_size

    def delete(self, key: str) -> None:
        path = self._object_path(key)
        with _translate_errors(key, self._root / key):
            path.unlink(missing_ok=True)
        # Remove the folders above that are empty now; rmdir fails where another writer is filling one.
        with suppress(OSError):
            for folder in path.parents:
                if folder == self._root:
                    break
                folder.rmdir()

    def list(self, prefix: str) -> Iterator[StoredObject]:
        folder, _, _ = prefix.rpartition("/")
        base = self._object_path(folder) if folder else self._root
        above = len(str(self._root))
        for path in _walk_files(base):
            key = path[above:].lstrip("/")
            if not key.startswith(prefix):
                continue
            with suppress(FileNotFoundError):
                found = os.stat(path)  # noqa: PTH116 - a Path for each of a million objects takes most of the time
                yield StoredObject(key, found.st_size, found.st_mtime)

    def remove_unfinished(self, older_than: float) -> int:
        before = time.time() - older_than
        removed = 0
        for path in map(Path, _walk_files(self._incoming)):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()
                    removed += 1
        return removed

    def presigned_url(self, key: str, seconds: int) -> str | None:
        check_key(key)
        return None

    def presigned_upload(self, key: str, seconds: int) -> str | None:
        check_key(key)
        return None

    def ping(self) -> None:
        with suppress(StoreMissing):
            self.size("jobs/readiness")

    def _object_path(self, key: str) -> Path:
        path = self._root / check_key(key)
        # The key cannot name a place outside; this refuses a symbolic link that leads out of the store.
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise InvalidStoreKey(f"{key!r} leads out of the store")
        return path


@contextmanager
def _translate_errors(key: str, path: Path | None = None, *, writing: bool = False) -> Iterator[None]:
    """Translate OSError into the errors of core.store.base; `path` is the object's path where it is not open yet."""
    try:
        yield
    except OSError as error:
        away = StoreTransient(f"The object store failed on {key}: {error.strerror or error}.")
        if path is not None and error.errno in _BARRED and not _folders_accessible(path):
            raise away from error
        if writing and error.errno in _REFUSALS:
            raise
        # While writing, a folder that another call has just removed is no missing object: a retry makes it again.
        if isinstance(error, FileNotFoundError) and not writing:
            raise StoreMissing(f"The object store has no {key}.") from error
        if not writing and error.errno in _UNREADABLE:
            raise StoreUnreadable(f"The object store cannot read {key}: {error.strerror or error}.") from error
        raise away from error


def _folders_accessible(path: Path) -> bool:
    """Whether the folders above are accessible: else the store is unavailable, and the object may well exist."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write_pieces(pieces: Iterable[bytes], target: Path) -> Digest:
    """Write, hash and flush the pieces in one pass, so that the digest is that of the bytes written."""
    digest, count = hashlib.sha256(), 0
    with target.open("xb") as writer:
        for piece in pieces:
            digest.update(piece)
            writer.write(piece)
            count += len(piece)
        writer.flush()
        os.fsync(writer.fileno())
    return Digest(digest.hexdigest(), count)


def _check_digest(target: Path, digest: Digest, key: str) -> Digest:
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest.sha256:
            raise StoreTaken(f"Other bytes are stored under {key}.")
    return digest


def _publish_file(aside: Path, target: Path, root: Path) -> bool:
    """Link the file to its name; False where another writer did that first."""
    for _ in range(_TRIES):
        # Another process may delete the last object of a folder, and the folder with it, just before the link.
        with suppress(FileNotFoundError):
            _make_folders(target.parent, root)
            try:
                target.hardlink_to(aside)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                aside.rename(target)
            sync_folder(target.parent)
            return True
    raise StoreTransient(f"The folders above {target.name} were removed at each try.")


def _make_folders(folder: Path, root: Path) -> None:
    """Make the folder and sync each folder that got a new entry, from the root down."""
    missing = [path for path in (folder, *folder.parents) if path.is_relative_to(root) and not path.exists()]
    for path in reversed(missing):
        with suppress(FileExistsError):  # mkdir's own exist_ok fails where the folder is removed right afterwards
            path.mkdir()
        sync_folder(path.parent)


def _read_pieces(file: BinaryIO, key: str, start: int, end: int | None) -> Iterator[bytes]:
    with file, _translate_errors(key):
        file.seek(start)
        left = None if end is None else max(0, end - start)
        while left is None or left > 0:
            piece = file.read(_PIECE if left is None else min(_PIECE, left))
            if not piece:
                return
            left = None if left is None else left - len(piece)
            yield piece


def _walk_files(folder: Path) -> Iterator[str]:
    """The files below the folder, sorted by name, without hidden files and folders; none if the folder is missing."""
    for base, folders, names in os.walk(folder, onerror=_raise_walk_error):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{base}/{name}" for name in sorted(names) if not name.startswith("."))


def _raise_walk_error(error: OSError) -> None:
    """A folder that cannot be listed must not count as empty."""
    if not isinstance(error, FileNotFoundError):
        raise StoreTransient(f"The object store cannot be listed: {error.strerror or error}.") from error
