"""The frames on the pipe between a supervisor and its runner.

A frame is four bytes of length (big-endian) and one JSON object: ``{"type": …, "job": …, …}``. Every frame names its
job, so that the format allows several jobs in one runner. Numbers outside JSON are sent as Python's own tokens
(``NaN``, ``Infinity``): both ends are Basin's.

    supervisor -> runner   assignment {assignment}     stop {mode}
    runner -> supervisor   started progress points checkpoint checkpoint_failed rollback log ended, with the fields of
                           the engine's events
                           alive {piece, usual}: a piece of work begins, which usually takes `usual` seconds
"""

# ruff: noqa: N818 - BadFrame says what it is

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Protocol

MAX_FRAME: Final = 64 << 20  # bytes; a longer frame means a broken peer
FLUSH_BYTES: Final = 64 << 10
FLUSH_SECONDS: Final = 0.05
_LENGTH: Final = struct.Struct(">I")
_TYPE_PREFIX: Final = b'{"type": "'


class BadFrame(Exception):
    """The peer sent something that is no frame."""


def pack_frame(kind: str, job: str, fields: Mapping[str, Any]) -> bytes:
    """One whole frame; `type` always comes first, see `type_of`."""
    payload = json.dumps({"type": kind, "job": job, **fields}).encode()
    if len(payload) > MAX_FRAME:
        raise BadFrame(f"a {kind} frame of {len(payload)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(payload)) + payload


def unpack_payload(payload: bytes) -> dict[str, Any]:
    """The object in a payload (a frame without its length)."""
    try:
        frame = json.loads(payload)
    except ValueError as error:
        raise BadFrame(f"a frame is not JSON: {payload[:80]!r}") from error
    if not isinstance(frame, dict) or not isinstance(frame.get("type"), str):
        raise BadFrame(f"a frame has no type: {payload[:80]!r}")
    return frame


def type_of(payload: bytes) -> str:
    """The type of a payload, without parsing the rest: thousands of points a second pass through here."""
    if not payload.startswith(_TYPE_PREFIX):
        raise BadFrame(f"a frame has no type: {payload[:80]!r}")
    start = len(_TYPE_PREFIX)
    return payload[start : payload.index(b'"', start)].decode()


class FrameSplitter:
    """Cuts a stream of bytes into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed_bytes(self, data: bytes) -> Iterator[bytes]:
        """Every payload that is whole once `data` has been added."""
        self._buffer += data
        start = 0
        try:
            while len(self._buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(self._buffer, start)
                if length > MAX_FRAME:
                    raise BadFrame(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
                end = start + _LENGTH.size + length
                if len(self._buffer) < end:
                    return
                payload = bytes(self._buffer[start + _LENGTH.size : end])
                start = end
                yield payload
        finally:
            del self._buffer[:start]


class ByteSource(Protocol):
    """A blocking stream of bytes, such as a socket."""

    def recv(self, count: int, /) -> bytes: ...


def receive_frame(sock: ByteSource) -> dict[str, Any] | None:
    """The next frame of a blocking socket; None at its end, also in the middle of a frame."""
    head = _receive_exactly(sock, _LENGTH.size)
    if head is None:
        return None
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise BadFrame(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    payload = _receive_exactly(sock, length)
    return None if payload is None else unpack_payload(payload)


def _receive_exactly(sock: ByteSource, count: int) -> bytes | None:
    data = bytearray()
    while len(data) < count:
        part = sock.recv(min(count - len(data), 1 << 20))
        if not part:
            return None
        data += part
    return bytes(data)


class FrameWriter:
    """Sends frames in batches: a burst of small frames costs one system call, and none waits over FLUSH_SECONDS.

    Another thread must call `flush_if_idle` regularly, or the last frame of a burst waits for the next one.
    A peer that does not read blocks the writer: that is the back-pressure of the pipe.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._buffer = bytearray()
        self._flushed_at = 0.0

    def write(self, frame: bytes, *, urgent: bool) -> None:
        with self._lock:
            self._buffer += frame
            late = time.monotonic() - self._flushed_at >= FLUSH_SECONDS
            if urgent or late or len(self._buffer) >= FLUSH_BYTES:
                self._send_waiting()

    def flush_if_idle(self) -> None:
        """Send the buffered frames, unless the writer holds the lock (a slow peer may block it)."""
        if self._lock.acquire(blocking=False):
            try:
                self._send_waiting()
            finally:
                self._lock.release()

    def _send_waiting(self) -> None:
        if self._buffer:
            self._sock.sendall(self._buffer)
            self._buffer.clear()
        self._flushed_at = time.monotonic()
