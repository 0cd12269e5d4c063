"""What the runner has said and the recorder has not yet written: a bounded queue that spills into a file."""

import struct
import threading
from collections import deque
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Final

MEMORY_BYTES: Final = 16 << 20
DISK_BYTES: Final = 2 << 30
_LENGTH: Final = struct.Struct(">I")


class Backlog:
    """Payloads in the order they came: in memory up to a bound, then in a file up to another.

    A checkpoint's files lie beside its payload and count too, until `settle` says that they are gone; all but those of
    the oldest, which are on their way into the store.

    While the database is away a training goes on and its points wait here. `full` tells the reader of the pipe to
    stop reading, and the pipe then holds the runner back: nothing is dropped.
    """

    def __init__(self, spill: Path, *, memory_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES) -> None:
        self._changed = threading.Condition()
        self._memory: deque[bytes] = deque()
        self._held = 0
        self._beside: deque[int] = deque()
        self._spill = spill
        self._file: BinaryIO | None = None
        self._read_at = 0
        self._write_at = 0
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._closed = False

    @property
    def full(self) -> bool:
        with self._changed:
            return self._write_at + sum(self._beside) - sum(islice(self._beside, 1)) >= self._disk_bytes

    @property
    def ended(self) -> bool:
        """Closed, and everything has been taken."""
        with self._changed:
            return self._closed and not self._memory and self._read_at == self._write_at

    def put(self, payload: bytes, beside: int | None = None) -> None:
        """`beside` bytes of files wait together with this payload."""
        with self._changed:
            # What lies in the file is younger than what is in memory, so nothing may overtake it.
            if self._read_at < self._write_at or self._held + len(payload) > self._memory_bytes:
                self._write(payload)
            else:
                self._memory.append(payload)
                self._held += len(payload)
            if beside is not None:
                self._beside.append(beside)
            self._changed.notify()

    def settle(self) -> None:
        """The files beside the oldest payload that had some are gone."""
        with self._changed:
            if self._beside:
                self._beside.popleft()

    def get(self, timeout: float) -> bytes | None:
        """The oldest payload, or None when none came within `timeout` seconds or none will come any more."""
        with self._changed:
            self._changed.wait_for(self._settled, timeout)
            if self._memory:
                payload = self._memory.popleft()
                self._held -= len(payload)
                return payload
            return self._read() if self._read_at < self._write_at else None

    def close(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Forget everything and release the file."""
        with self._changed:
            self._closed = True
            self._memory.clear()
            self._beside.clear()
            self._held = self._read_at = self._write_at = 0
            if self._file is not None:
                with suppress(OSError):  # a full disk, and nobody wants these bytes any more
                    self._file.close()
                self._file = None
            self._changed.notify_all()

    def _settled(self) -> bool:
        return bool(self._memory) or self._read_at < self._write_at or self._closed

    def _write(self, payload: bytes) -> None:
        if self._file is None:
            self._file = self._spill.open("w+b")
        self._file.seek(self._write_at)
        self._file.write(_LENGTH.pack(len(payload)))
        self._file.write(payload)
        self._write_at = self._file.tell()

    def _read(self) -> bytes:
        if self._file is None:
            raise RuntimeError("there is something to read only when the file is open")
        self._file.seek(self._read_at)
        (length,) = _LENGTH.unpack(self._file.read(_LENGTH.size))
        payload = self._file.read(length)
        self._read_at = self._file.tell()
        if self._read_at == self._write_at:
            self._read_at = self._write_at = 0
            self._file.seek(0)
            self._file.truncate()
        return payload
