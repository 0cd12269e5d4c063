"""The interface of an object store, and its errors."""

# ruff: noqa: N818 - the names say what failed

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from core.errors import BasinError, NotFound, Unavailable


class StoreTransient(Unavailable):
    """The object store is unavailable or out of space; the same call may succeed in a moment."""

    code: ClassVar[str] = "store_unavailable"


class StoreRefused(Unavailable):
    """The object store refuses the service's request: the bucket, the credentials or their permissions are wrong."""

    code: ClassVar[str] = "store_refused"


class StoreMissing(NotFound):
    """The object store has no such object."""

    code: ClassVar[str] = "object_missing"


class StoreUnreadable(BasinError):
    """The object store has this object and cannot read it; a retry does not help."""

    code: ClassVar[str] = "object_unreadable"


class StoreTaken(BasinError):
    """There is already another object under this key; keys are never reused."""

    code: ClassVar[str] = "object_exists"
    kind = "conflict"


class InvalidStoreKey(BasinError):
    """This is not a key of the service's own form."""

    code: ClassVar[str] = "bad_key"
    kind = "invalid"


@dataclass(frozen=True, slots=True)
class Digest:
    """The digest of the bytes transferred: `sha256` in hex, and `bytes`, their number."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An entry of a listing; `modified_at` is unix seconds."""

    key: str
    bytes: int
    modified_at: float


class Store(Protocol):
    """Whole objects under keys.

    Every method may raise StoreTransient (retry), StoreRefused (the operator has to act first) and InvalidStoreKey
    (a bug of the caller).
    """

    def put_file(self, path: Path, key: str) -> Digest:
        """Store a copy of the file, durably: when this returns, a power cut does not lose it.

        Storing the same bytes again is allowed, so that a call whose answer was lost can be retried.

        Raises:
            StoreTaken: other bytes are stored under this key.
            OSError: the file cannot be read, or the store is full or not writable: an immediate retry does not help.
        """
        ...

    def put_bytes(self, content: bytes, key: str) -> Digest:
        """Store these bytes, as `put_file` does and with its errors; no file of this machine is involved."""
        ...

    def fetch(self, key: str, path: Path) -> Digest:
        """Copy the object into a local file, which appears whole or not at all.

        Raises:
            StoreMissing: there is no such object.
            StoreUnreadable: the object exists and cannot be read.
            OSError: the local file cannot be written; the store is not the cause.
        """
        ...

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in pieces.

        Raises:
            StoreMissing: there is no such object; raised by the call, not while iterating.
        """
        ...

    def size(self, key: str) -> int:
        """The size of the object in bytes.

        Raises:
            StoreMissing: there is no such object.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; a missing one is no error."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of keys, folder by folder."""
        ...

    def remove_unfinished(self, older_than: float) -> int:
        """Remove the remains of interrupted uploads older than `older_than` seconds; return how many there were."""
        ...

    def presigned_url(self, key: str, seconds: int) -> str | None:
        """A URL that gives the object without credentials for this many seconds; None if the store has no such URLs."""
        ...

    def presigned_upload(self, key: str, seconds: int) -> str | None:
        """A URL that takes the object by PUT without credentials for this many seconds; None as above."""
        ...

    def ping(self) -> None:
        """Return within seconds if the store works; else raise what every method may raise."""
        ...


def digest_of(store: Store, key: str) -> Digest:
    """SHA-256 and size of the bytes that the store returns.

    Raises:
        StoreMissing: there is no such object.
        StoreUnreadable: the object exists and cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    for piece in store.open_range(key):
        digest.update(piece)
        count += len(piece)
    return Digest(digest.hexdigest(), count)
