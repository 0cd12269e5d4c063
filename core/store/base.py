"""What callers need of an object store, and no more."""

# ruff: noqa: N818 - the names say what happened

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from core.errors import BasinError, NotFound, Unavailable


class StoreTransient(Unavailable):
    """The object store is away or out of space; the same call may succeed in a moment."""

    code: ClassVar[str] = "store_unavailable"


class StoreRefused(Unavailable):
    """The object store refuses what the service asks: its bucket, its keys or their rights are wrong."""

    code: ClassVar[str] = "store_refused"


class StoreMissing(NotFound):
    """The object store has no such object."""

    code: ClassVar[str] = "object_missing"


class StoreUnreadable(BasinError):
    """The object store has this object and cannot read it; trying again does not help."""

    code: ClassVar[str] = "object_unreadable"


class StoreTaken(BasinError):
    """There is an object under this key already; keys are never used twice."""

    code: ClassVar[str] = "object_exists"
    kind = "conflict"


class InvalidStoreKey(BasinError):
    """This is not a key that we made."""

    code: ClassVar[str] = "bad_key"
    kind = "invalid"


@dataclass(frozen=True, slots=True)
class Digest:
    """What was really moved: `sha256` in hex, `bytes` as counted."""

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

    Every method may raise StoreTransient (try again), StoreRefused (an operator has to act first) and BadKey (never).
    """

    def put_file(self, path: Path, key: str) -> Digest:
        """Store a copy of the file, durably: when this returns, a power cut does not lose it.

        Putting the very same bytes again is harmless, so that a lost answer can be retried.

        Raises:
            StoreTaken: other bytes are stored under this key.
            OSError: the file cannot be read, or the store is full or not writable: a retry would not help soon.
        """
        ...

    def fetch(self, key: str, path: Path) -> Digest:
        """Copy the object into a local file, which appears whole or not at all.

        Raises:
            StoreMissing: there is no such object.
            StoreUnreadable: it is there and cannot be read.
            OSError: the local file cannot be written; that is no fault of the store.
        """
        ...

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `end`, in pieces.

        Raises:
            StoreMissing: there is no such object; raised by the call, not by the first piece.
        """
        ...

    def size(self, key: str) -> int:
        """Bytes of the object.

        Raises:
            StoreMissing: there is no such object.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; one that is not there is fine."""
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object whose key begins with `prefix`, in the order of their keys, folder by folder."""
        ...

    def remove_unfinished(self, older_than: float) -> int:
        """Remove what uploads that died left behind more than `older_than` seconds ago; says how many."""
        ...

    def presigned_url(self, key: str, seconds: int) -> str | None:
        """A URL that gives the object to whoever holds it, for so long; None: this store has no such thing."""
        ...

    def ping(self) -> None:
        """Come back within seconds if the store works; else raise what every method may raise."""
        ...


def digest_of(store: Store, key: str) -> Digest:
    """SHA-256 and size of the bytes that the store gives.

    Raises:
        StoreMissing: there is no such object.
        StoreUnreadable: it is there and cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    for piece in store.open_range(key):
        digest.update(piece)
        count += len(piece)
    return Digest(digest.hexdigest(), count)
