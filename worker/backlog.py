"""Frames of the runner that the recorder has not yet written: a bounded queue that spills into a file."""

import errno
import os
import struct
import threading
from collections import deque
from contextlib import suppress
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final

from core.machine_failure import is_machine_failure

MEMORY_BYTES: Final = 16 << 20
DISK_BYTES: Final = 2 << 30
_LENGTH: Final = struct.Struct(">I")


class Backlog:
    """Payloads in the order they came: in memory up to a bound, then in a file up to another.

    The files of a checkpoint count towards the bound of the disk until `release_files` reports that they are removed.
    Those of the oldest checkpoint do not count: they are being uploaded.

    While the database is away the training continues and its points wait here. While `full` is true the reader of the
    pipe stops reading, and the pipe then blocks the runner: nothing is dropped. A payload that the disk does not take
    waits in memory, after those in the file; the backlog is full until the disk or the recorder has taken it.
    """

    def __init__(self, spill: Path, *, memory_bytes: int = MEMORY_BYTES, disk_bytes: int = DISK_BYTES) -> None:
        self._changed = threading.Condition()
        self._memory: deque[bytes] = deque()
        self._held = 0
        self._beside: deque[int] = deque()
        self._spill = spill
        self._file: FileIO | None = None
        self._late: deque[bytes] = deque()
        self._read_at = 0
        self._write_at = 0
        self._memory_bytes = memory_bytes
        self._disk_bytes = disk_bytes
        self._closed = False

    @property
    def full(self) -> bool:
        with self._changed:
            if self._late and not self._spill_waiting():
                return True
            return self._write_at + sum(self._beside) - sum(islice(self._beside, 1)) >= self._disk_bytes

    @property
    def ended(self) -> bool:
        """Closed, and everything has been taken."""
        with self._changed:
            return self._closed and not self._memory and self._read_at == self._write_at and not self._late

    def put(self, payload: bytes, beside: int | None = None) -> None:
        """`beside` bytes of files wait together with this payload."""
        with self._changed:
            # Payloads in the file are newer than those in memory: the order must be kept.
            if self._late or self._read_at < self._write_at or self._held + len(payload) > self._memory_bytes:
                self._late.append(payload)
                self._spill_waiting()
            else:
                self._memory.append(payload)
                self._held += len(payload)
            if beside is not None:
                self._beside.append(beside)
            self._changed.notify()

    def release_files(self) -> None:
        """The files of the oldest payload with files are removed."""
        with self._changed:
            if self._beside:
                self._beside.popleft()

    def get(self, timeout: float) -> bytes | None:
        """The oldest payload, or None when none came within `timeout` seconds or none will come any more."""
        with self._changed:
            self._changed.wait_for(self._is_settled, timeout)
            if self._memory:
                payload = self._memory.popleft()
                self._held -= len(payload)
                return payload
            if self._read_at < self._write_at:
                return self._read_spill()
            return self._late.popleft() if self._late else None

    def close(self) -> None:
        """Nothing more will be put."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard_all(self) -> None:
        """Discard every payload and close the file."""
        with self._changed:
            self._closed = True
            self._memory.clear()
            self._beside.clear()
            self._late.clear()
            self._held = self._read_at = self._write_at = 0
            if self._file is not None:
                with suppress(OSError):  # these bytes are discarded anyway
                    self._file.close()
                self._file = None
            self._changed.notify_all()

    def _is_settled(self) -> bool:
        return bool(self._memory or self._late) or self._read_at < self._write_at or self._closed

    def _spill_waiting(self) -> bool:
        """Move what the disk takes now into the file; True when no payload is left in memory after the file."""
        try:
            while self._late:
                self._write_spill(self._late[0])
                self._late.popleft()
        except OSError as error:
            if not is_machine_failure(error):
                raise
        return not self._late

    def _write_spill(self, payload: bytes) -> None:
        """Append one payload. After a failure the next write overwrites the part that a full disk has taken."""
        if self._file is None:
            self._file = self._spill.open("w+b", buffering=0)
        content, done = memoryview(_LENGTH.pack(len(payload)) + payload), 0
        while done < len(content):
            done += os.pwrite(self._file.fileno(), content[done:], self._write_at + done)
        self._write_at += done

    def _read_spill(self) -> bytes:
        (length,) = _LENGTH.unpack(self._read_bytes(_LENGTH.size, self._read_at))
        payload = self._read_bytes(length, self._read_at + _LENGTH.size)
        self._read_at += _LENGTH.size + length
        if self._read_at == self._write_at and self._file is not None:
            self._read_at = self._write_at = 0
            self._file.truncate(0)
        return payload

    def _read_bytes(self, count: int, at: int) -> bytes:
        if self._file is None:
            raise RuntimeError("the spill file of the backlog is read before it is opened")
        found = bytearray()
        while len(found) < count:
            piece = os.pread(self._file.fileno(), count - len(found), at + len(found))
            if not piece:
                raise OSError(errno.EIO, "the spill file of the backlog is shorter than what was written to it")
            found += piece
        return bytes(found)
