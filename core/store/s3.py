"""Objects in an S3 bucket, through obstore. Only its synchronous calls: the others abort a process at its exit."""

import contextlib
import errno
import hashlib
import itertools
import logging
import os
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from core.store import multipart
from core.store.base import (
    Digest,
    InvalidStoreKey,
    StoredObject,
    StoreMissing,
    StoreRefused,
    StoreTaken,
    StoreTransient,
    digest_of,
)
from core.store.keys import check_key
from core.store.location import StoreLocation
from core.store.s3_client import REQUEST, TUNING, S3Tuning, make_client
from core.store.s3_errors import status_of, translate_error

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store as Client

log = logging.getLogger(__name__)

_MOST_PARTS: Final = 9_000  # S3 takes 10,000
_AT_ONCE: Final = 4  # concurrent uploads of parts: 32 MiB of memory
_PIECE_BYTES: Final = 8 << 20
_PATIENCE_SECONDS: Final = 15.0
_PING: Final = timedelta(seconds=2)

# An empty object that is never deleted. Keys do not begin with a dot, so that it is never listed.
_CREATED_ONCE: Final = ".created-once"

T = TypeVar("T")
_user: int | None = None  # the process that uses obstore


class S3Store:
    """A Store in a bucket. The client is created by the first call, in the process that makes the call."""

    def __init__(self, place: StoreLocation, tuning: S3Tuning = TUNING) -> None:
        self._place = place
        self._tuning = tuning
        self._lock = threading.Lock()
        self._client: Client | None = None
        self._creates: bool | None = None

    def __repr__(self) -> str:
        return f"S3Store({self._place.bucket.name!r}, {self._place.bucket.prefix!r})"

    def put_file(self, path: Path, key: str) -> Digest:
        return self._put_source(_read_source(path, self._tuning), key)

    def put_bytes(self, content: bytes, key: str) -> Digest:
        return self._put_source(_source_in_memory(content, self._tuning), key)

    def _put_source(self, source: "_SourceFile", key: str) -> Digest:
        check_key(key)
        tries = itertools.count()
        tag = self._call_with_retry(
            key, lambda client: self._upload_file(client, source, key, next(tries)), writing=True
        )
        if tag is None:
            self._compare_object(source, key)
        elif tag != source.tag and self._object_digest(key) != source.digest:
            self.delete(key)
            raise StoreTransient(f"{key} was damaged on its way to the object store.")
        return source.digest

    def fetch(self, key: str, path: Path) -> Digest:
        pieces = self.open_range(key)
        aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        digest, count = hashlib.sha256(), 0
        try:
            with aside.open("xb") as file:
                for piece in pieces:
                    digest.update(piece)
                    count += file.write(piece)
            aside.rename(path)
        except OSError as error:
            raise StoreTransient(f"{key} cannot be written here: {error.strerror or error}.") from error
        finally:
            aside.unlink(missing_ok=True)
        return Digest(digest.hexdigest(), count)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        size = self.size(key)
        return self._read_pieces(key, start, size if end is None else min(end, size))

    def size(self, key: str) -> int:
        return self._head_object(key)["size"]

    def delete(self, key: str) -> None:
        import obstore

        check_key(key)
        with contextlib.suppress(StoreMissing):
            self._call_with_retry(key, lambda client: obstore.delete(client, key))

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Every object, one page for each request; a page begins after the last key, so that a page can be retried."""
        folder, last = prefix.rpartition("/")[0], ""
        while page := self._list_page(folder, last):
            for found in page:
                if _is_ours(found["path"], prefix):
                    yield StoredObject(found["path"], found["size"], found["last_modified"].timestamp())
            last = page[-1]["path"]

    def remove_unfinished(self, older_than: float) -> int:
        return multipart.abort_uploads(self._place, time.time() - older_than)

    def presigned_url(self, key: str, seconds: int) -> str | None:
        import obstore

        check_key(key)
        return obstore.sign(self._open_client(), "GET", key, timedelta(seconds=seconds))

    def presigned_upload(self, key: str, seconds: int) -> str | None:
        import obstore

        check_key(key)
        return obstore.sign(self._open_client(), "PUT", key, timedelta(seconds=seconds))

    def ping(self) -> None:
        import obstore

        _claim_process()
        hasty = self._make_client(tries=0, request=_PING)
        try:
            obstore.get(hasty, _CREATED_ONCE)
        except Exception as error:
            failure = translate_error(error, "a ping", writing=False)
            if not isinstance(failure, StoreMissing):
                raise failure from error

    def _upload_file(self, client: "Client", source: "_SourceFile", key: str, tried: int) -> str | None:
        """Upload once: the server's ETag of the object; None where there is an object already."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        whole = source.content
        create = isinstance(whole, bytes) and self._honours_if_none_match(client)
        # An earlier try may have been carried out without an answer. A multipart upload has no create-only mode; as no
        # other process writes under this key, a look-up before it is enough.
        if tried or not create:
            with contextlib.suppress(StoreMissing):
                self._object_meta(client, key)
                return None
        if isinstance(whole, Path):
            put = obstore.put(
                client, key, whole, use_multipart=True, chunk_size=source.part_bytes, max_concurrency=_AT_ONCE
            )
            return _md5_tag(put["e_tag"])
        try:
            mode: Literal["create", "overwrite"] = "create" if create else "overwrite"
            return _md5_tag(obstore.put(client, key, whole, mode=mode, use_multipart=False)["e_tag"])
        except AlreadyExistsError:
            return None

    def _honours_if_none_match(self, client: "Client") -> bool:
        """Whether this server honours If-None-Match: tested once, because not all do and none declares it."""
        if self._creates is None:
            self._creates = _refuses_to_create_twice(client)
            if not self._creates:
                log.warning("the object store ignores If-None-Match: keys are looked up before they are written")
        return self._creates

    def _compare_object(self, source: "_SourceFile", key: str) -> None:
        """Accept an object that exists already if it has the same bytes: the answer to our own put may have been lost.

        Raises:
            StoreTaken: it has other bytes.
        """
        found = self._head_object(key)
        same = found["size"] == source.digest.bytes and (
            _md5_tag(found["e_tag"]) == source.tag or self._object_digest(key) == source.digest
        )
        if not same:
            raise StoreTaken(f"Other bytes are stored under {key}.")

    def _object_digest(self, key: str) -> Digest:
        return digest_of(self, key)

    def _head_object(self, key: str) -> "ObjectMeta":
        check_key(key)
        return self._call_with_retry(key, lambda client: self._object_meta(client, key))

    def _object_meta(self, client: "Client", key: str) -> "ObjectMeta":
        """Size, time and ETag of an object. The answer to HEAD has no body, so that only GET gives the cause."""
        import obstore

        try:
            return obstore.head(client, key)
        except Exception as error:
            if not (status_of(error) or "").startswith("4"):
                raise
        try:
            return obstore.get(client, key).meta
        except Exception as error:
            raise translate_error(error, key, writing=False) from error

    def _read_pieces(self, key: str, start: int, end: int) -> Iterator[bytes]:
        import obstore

        while start < end:
            stop = min(end, start + _PIECE_BYTES)
            span = {"start": start, "end": stop}
            piece = self._call_with_retry(key, lambda client, span=span: bytes(obstore.get_range(client, key, **span)))  # type: ignore[misc]
            if len(piece) != stop - start:
                raise StoreTransient(f"The object store answered {len(piece)} bytes of {key}, not {stop - start}.")
            yield piece
            start = stop

    def _list_page(self, folder: str, last: str) -> "Sequence[ObjectMeta]":
        import obstore

        def request_page(client: "Client") -> "Sequence[ObjectMeta]":
            pages = obstore.list(client, folder or None, offset=last or None, chunk_size=self._tuning.page_keys)
            return [found for found in next(iter(pages), ()) if found["path"] > last]

        return self._call_with_retry(folder or "the listing", request_page)

    def _call_with_retry(self, key: str, call: "Callable[[Client], T]", *, writing: bool = False) -> T:
        """The result of `call`, retried after transient failures; failures become the errors of core.store.base."""
        client = self._open_client()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for tried in range(self._tuning.tries):
            try:
                return call(client)
            except Exception as error:
                failure = _translate_failure(error, key, writing=writing)
                last = tried == self._tuning.tries - 1 or time.monotonic() > deadline
                if last or not isinstance(failure, StoreTransient):
                    raise failure from error
            time.sleep(self._tuning.pause_seconds * random.uniform(0.5, 1.0) * (1 << tried))
        raise StoreTransient(f"The object store failed on {key}.")

    def _open_client(self) -> "Client":
        _claim_process()
        with self._lock:
            if self._client is None:
                self._client = self._make_client(tries=self._tuning.inner_tries, request=REQUEST)
            return self._client

    def _make_client(self, *, tries: int, request: timedelta) -> "Client":
        prefix = self._place.bucket.prefix or None
        return make_client(self._place, self._tuning, prefix=prefix, tries=tries, request=request)


@dataclass(frozen=True, slots=True)
class _SourceFile:
    """What to upload: bytes, or a file too large for the memory.

    `tag` is the ETag that servers which use MD5 would give it; other ETags differ from it.
    """

    content: bytes | Path
    digest: Digest
    tag: str
    part_bytes: int


def _read_source(path: Path, tuning: S3Tuning) -> _SourceFile:
    if not path.is_file():
        raise FileNotFoundError(path)
    size = path.stat().st_size
    if size <= tuning.whole_bytes:
        return _source_in_memory(path.read_bytes(), tuning)
    part_bytes = max(tuning.part_bytes, -(-size // _MOST_PARTS))
    sha256, count, parts = hashlib.sha256(), 0, []
    with path.open("rb") as file:
        while part := file.read(part_bytes):
            sha256.update(part)
            count += len(part)
            parts.append(hashlib.md5(part, usedforsecurity=False).digest())
    tag = f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return _SourceFile(path, Digest(sha256.hexdigest(), count), tag, part_bytes)


def _source_in_memory(content: bytes, tuning: S3Tuning) -> _SourceFile:
    digest = Digest(hashlib.sha256(content).hexdigest(), len(content))
    tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return _SourceFile(content, digest, tag, tuning.part_bytes)


def _md5_tag(etag: str | None) -> str:
    return (etag or "").strip('"')


def _is_ours(key: str, prefix: str) -> bool:
    """Whether the key is one of the service's own; a bucket may hold other objects too."""
    with contextlib.suppress(InvalidStoreKey):
        return check_key(key).startswith(prefix)
    return False


def _refuses_to_create_twice(client: "Client") -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError

    for _ in range(2):
        try:
            obstore.put(client, _CREATED_ONCE, b"", mode="create")
        except AlreadyExistsError:
            return True
        except BaseError as error:
            if status_of(error) not in {"400", "501"}:
                raise
            return False
    return False


def _translate_failure(error: Exception, key: str, *, writing: bool) -> Exception:
    """Errors of the client library become those of core.store.base; errors of this machine or of ours stay."""
    from obstore.exceptions import BaseError

    if isinstance(error, BaseError) or (isinstance(error, OSError) and status_of(error) is not None):
        return translate_error(error, key, writing=writing)
    if isinstance(error, StoreRefused) and writing:
        return PermissionError(errno.EACCES, error.message)
    return error


def _claim_process() -> None:
    """Raise RuntimeError in a fork of a process that has used the client library, which would hang there for ever."""
    global _user  # noqa: PLW0603 - a fact about the process
    if _user is None:
        _user = os.getpid()
    if _user != os.getpid():
        raise RuntimeError("the object store was used before this process was forked")
