"""Bodies that are files: their limits, the least rate, and how they are cut into pieces without touching a disk."""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from api.errors import HttpError
from api.middleware import MAX_BODY
from core.db.wait_budget import pause_wait_budget
from core.errors import TooLarge, Unavailable, Unsupported

OCTETS: Final = "application/octet-stream"
OFFSET_OCTETS: Final = "application/offset+octet-stream"
LEAST_RATE: Final = 64_000  # bytes per second
RATE_SECONDS: Final = 60.0  # over which it is measured; only the time in which the service waits for bytes counts
TURN_SECONDS: Final = 30.0
MOST_STORING: Final = 4
DIGESTS: Final = {"sha1": hashlib.sha1, "sha256": hashlib.sha256}

_CONTENT: Final = re.compile(r"/v1/datasets/[^/]+/content")


def body_limit(scope: Scope, headers: Headers, *, most_upload: int) -> int:
    """How many bytes the body of this request may have: `most_upload` where it is a file."""
    method, path = scope["method"], scope["path"]
    if method in {"PUT", "PATCH"} and _CONTENT.fullmatch(path):
        return most_upload
    return most_upload if (method, path, media_type(headers)) == ("POST", "/v1/datasets", OCTETS) else MAX_BODY


def media_type(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media_type(headers: Headers, wanted: str) -> None:
    """Raise Unsupported for any other type: a form of another site can send some without being asked."""
    if media_type(headers) != wanted:
        raise Unsupported(f"The body must be sent with Content-Type: {wanted}.")


def require_no_encoding(headers: Headers) -> None:
    """Raise Unsupported for a compressed body: its bytes are not those of the file."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Unsupported("The body must be sent without Content-Encoding.")


def content_length(headers: Headers) -> int | None:
    """The announced length of the body; None where it is sent in chunks."""
    given = headers.get("content-length")
    return None if given is None or "transfer-encoding" in headers else int(given)


class UploadSlots:
    """Bounds how many uploads one process receives at once, and how many of them store a piece.

    One that arrives holds a piece in memory, one that stores a piece holds up to three. Thus many slow clients take
    little.
    """

    def __init__(self, most: int) -> None:
        self._turns = asyncio.Semaphore(most)
        self._storing = asyncio.Semaphore(MOST_STORING)

    @contextlib.asynccontextmanager
    async def store_turn(self) -> AsyncIterator[None]:
        """Wait until a piece may be stored; the client waits meanwhile."""
        with pause_wait_budget():
            await self._storing.acquire()
        try:
            yield
        finally:
            self._storing.release()

    @contextlib.asynccontextmanager
    async def take_turn(self) -> AsyncIterator[None]:
        """Wait for a turn, while the body stays in the network. Raises Unavailable where it takes too long."""
        try:
            with pause_wait_budget():
                async with asyncio.timeout(TURN_SECONDS):
                    await self._turns.acquire()
        except TimeoutError:
            raise Unavailable("Too many uploads arrive at once; try again shortly.") from None
        try:
            yield
        finally:
            self._turns.release()


@dataclass(frozen=True, slots=True)
class GivenChecksum:
    """The checksum of one request's body, as the header `Upload-Checksum` announces it."""

    algorithm: str
    digest: bytes

    @classmethod
    def of(cls, headers: Headers) -> "GivenChecksum | None":
        """The one in the headers; None: there is none. HttpError 400 where it cannot be checked."""
        given = headers.get("upload-checksum")
        if given is None:
            return None
        algorithm, _, text = given.strip().partition(" ")
        with contextlib.suppress(binascii.Error, ValueError):
            digest = base64.b64decode(text.strip(), validate=True)
            if algorithm in DIGESTS and len(digest) == DIGESTS[algorithm](usedforsecurity=False).digest_size:
                return cls(algorithm, digest)
        message = f"Upload-Checksum must be one of {', '.join(DIGESTS)} and the digest in base64."
        raise HttpError(400, "bad_checksum", message, {"Tus-Checksum-Algorithm": ",".join(DIGESTS)})


async def read_pieces(request: Request, size: int, most: int) -> AsyncGenerator[bytes]:
    """The body in pieces of exactly `size` bytes, the last one excepted.

    Where the body ends early, because the client is gone or too slow, what has arrived is given before the error.

    Raises:
        TooLarge: the body has more than `most` bytes.
        HttpError: it arrives too slowly.
        ClientDisconnect: it has no end.
    """
    buffer, left = bytearray(), most
    try:
        async for chunk in _paced_chunks(request):
            left -= len(chunk)
            if left < 0:
                raise TooLarge("The body has more bytes than were announced, or than this service takes.")
            view = memoryview(chunk)
            while view:
                taken = size - len(buffer)
                buffer += view[:taken]
                view = view[taken:]
                if len(buffer) == size:
                    piece = bytes(buffer)
                    buffer.clear()
                    yield piece
                    del piece
    except (ClientDisconnect, HttpError):
        if buffer:
            yield bytes(buffer)
        raise
    if buffer:
        yield bytes(buffer)


async def _paced_chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it arrives, until it is slower than LEAST_RATE."""
    waited, arrived, more = 0.0, 0, True
    while more:
        begun = time.monotonic()
        try:
            async with asyncio.timeout(RATE_SECONDS - waited):
                message = await request.receive()
        except TimeoutError:
            if arrived < LEAST_RATE * RATE_SECONDS:
                text = f"The body arrives at less than {LEAST_RATE} bytes per second."
                raise HttpError(408, "timeout", text, {"Connection": "close"}) from None
            waited, arrived = 0.0, 0
            continue
        waited = min(waited + time.monotonic() - begun, RATE_SECONDS)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        if chunk := message.get("body", b""):
            arrived += len(chunk)
            yield chunk
