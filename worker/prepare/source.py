"""The uploaded file as the prepare process has it: an open descriptor, never a path."""

import errno
import hashlib
import io
import mmap
import os
import stat
from collections.abc import Callable
from typing import Final

BLOCK_BYTES: Final = 1 << 20


class InputFile:
    """A regular file, or a memfd, that another process has opened for reading.

    Every reader has a position of its own, so several may read at once.
    """

    def __init__(self, fd: int, filename: str | None = None) -> None:
        """`filename` is the name that the owner gave it, at most a hint."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("the input is not a regular file")
        self.fd = fd
        self.filename = filename
        self.size = found.st_size
        self._sha256: str | None = None

    def open(self) -> "InputReader":
        """An unbuffered binary file at its beginning."""
        return InputReader(self)

    def map(self) -> memoryview:
        """The whole content as memory that the kernel pages in; empty for an empty file.

        Address space is limited: map what is known to fit, and read the rest.
        """
        if self.size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(self.fd, self.size, prot=mmap.PROT_READ))

    def read_at(self, offset: int, count: int) -> bytes:
        """Exactly `count` bytes from `offset`, or fewer at the end of the file."""
        parts = []
        while count > 0:
            part = os.pread(self.fd, count, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def sha256(self, report_bytes: Callable[[int], None] = lambda _done: None) -> str:
        """The digest of the content in hex, by one pass at the first call; it reports how many bytes are done."""
        if self._sha256 is None:
            digest = hashlib.sha256()
            for offset in range(0, self.size, BLOCK_BYTES):
                digest.update(self.read_at(offset, BLOCK_BYTES))
                report_bytes(offset)
            self._sha256 = digest.hexdigest()
        return self._sha256


class InputReader(io.RawIOBase):
    """Reads an InputFile from a position of its own. It has no `fileno`: the descriptor's position is shared."""

    def __init__(self, source: InputFile) -> None:
        super().__init__()
        self._source = source
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._source.size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, "a position before the beginning")  # as of a file: zipfile expects it
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]  # any object with a buffer
        count = os.preadv(self._source.fd, [view], self._position)
        self._position += count
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Exactly `size` bytes, fewer at the end of the file; all of the rest by default."""
        left = max(0, self._source.size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        data = self._source.read_at(self._position, wanted)
        self._position += len(data)
        return data
