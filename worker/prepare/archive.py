"""Members of uploaded archives. Nothing is ever extracted to a name: members are streams of bytes."""

import errno
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from worker.prepare.report import Report
from worker.prepare.source import InputFile

PIECE_BYTES: Final = 64 << 10
MOST_MEMBERS: Final = 1_000_000
MOST_RATIO: Final = 200
RATIO_FROM_BYTES: Final = 1 << 20
"""Below this size a member may shrink to anything: runs of zeros do."""
_JUNK: Final = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
BROKEN_ZIP: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError, ValueError),
    *(struct.error, IndexError, OverflowError),
)
"""All that zipfile raises for damaged bytes."""
_ENCRYPTED: Final = 0x1
_REGULAR_OR_UNKNOWN: Final = (0, stat.S_IFREG)


@dataclass(frozen=True, slots=True)
class Member:
    """One regular file of an archive; `size` is what the archive announces.

    `pieces` gives at most that many bytes. It is used before the next member is asked for, and once.
    """

    name: str
    size: int
    pieces: Callable[[], Iterator[bytes]]

    def read(self) -> bytes:
        """The whole content, for small members."""
        return b"".join(self.pieces())


def iterate_members(source: InputFile, report: Report) -> Iterator[Member]:
    """The files of a zip, tar or tar.gz in their order. Folders and the litter of desktops are left out.

    Raises:
        Refused: the archive is broken or lies, has a name that leaves it, a name twice, a link, or a bomb.
    """
    head = source.read_at(0, 4)
    members = _zip_members(source, report) if head.startswith(b"PK") else _tar_members(source, report, head)
    seen: set[str] = set()
    for member in members:
        _check_name(member.name, seen, report)
        if not _is_junk(member.name):
            yield member


def spool(pieces: Iterator[bytes], folder: Path, filename: str | None = None) -> InputFile:
    """A stream of bytes as a file without a name in `folder`."""
    path = folder / ".spool"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    path.unlink()
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[os.write(fd, view) :]
    return InputFile(fd, filename)


def inflate_pieces(source: InputFile, report: Report) -> Iterator[bytes]:
    """The content of a gzip file in small pieces. Raises Refused for a broken one and for a bomb."""
    inflater, read, made = zlib.decompressobj(wbits=31), 0, 0
    while read < source.size or inflater.unconsumed_tail:
        data = inflater.unconsumed_tail
        if not data:
            data = source.read_at(read, PIECE_BYTES)
            read += len(data)
        try:
            piece = inflater.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            report.refuse("unreadable", f"the gzip file is broken: {error}")
        made += len(piece)
        _check_ratio(made, read, source.filename, report)
        if piece:
            yield piece
        if inflater.eof:
            if read < source.size or inflater.unused_data.strip(b"\0"):
                report.refuse("unreadable", "the gzip file continues after its end")
            return
    report.refuse("unreadable", "the gzip file ends in the middle")


def _check_name(name: str, seen: set[str], report: Report) -> None:
    if len(seen) >= MOST_MEMBERS:
        report.refuse("too_many_files", f"the archive has more than {MOST_MEMBERS:,} files")
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in PurePosixPath(name).parts or name[1:2] == ":":
        report.refuse("unsafe_name", "the name of a file leads out of the archive, or has a backslash", file=name)
    if name in seen:
        report.refuse("name_twice", "the archive has two files of this name", file=name)
    seen.add(name)


def _is_junk(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name in _JUNK or path.name.startswith("._") or "__MACOSX" in path.parts


def open_zip(source: InputFile, report: Report) -> zipfile.ZipFile:
    """The zip file with its directory read. Raises Refused where it is broken."""
    try:
        return zipfile.ZipFile(source.open())
    except BROKEN_ZIP as error:
        _raise_if_machine(error)
        report.refuse("unreadable", f"the zip file is broken: {error}")


def _raise_if_machine(error: Exception) -> None:
    """An OSError is the disk's, but that of a position before the beginning, which a broken directory names."""
    if isinstance(error, OSError) and error.errno not in {None, errno.EINVAL}:
        raise error


def _zip_members(source: InputFile, report: Report) -> Iterator[Member]:
    archive = open_zip(source, report)
    for info in archive.infolist():
        if not info.filename:
            report.refuse("unsafe_name", "a file of the archive has no name")
        if info.is_dir():
            continue
        if stat.S_IFMT(info.external_attr >> 16) not in _REGULAR_OR_UNKNOWN:
            report.refuse("not_a_file", "the archive has a link or a device", file=info.filename)
        if info.flag_bits & _ENCRYPTED:
            report.refuse("encrypted", "the archive is encrypted", file=info.filename)
        yield Member(info.filename, info.file_size, lambda info=info: _zip_pieces(archive, info, report))  # type: ignore[misc]


def _zip_pieces(archive: zipfile.ZipFile, info: zipfile.ZipInfo, report: Report) -> Iterator[bytes]:
    made = 0
    try:
        with archive.open(info) as member:
            while piece := member.read(PIECE_BYTES):
                made += len(piece)
                _check_ratio(made, info.compress_size, info.filename, report)
                yield piece
    except BROKEN_ZIP as error:
        _raise_if_machine(error)
        report.refuse("unreadable", f"the archive is broken: {error}", file=info.filename)
    if made != info.file_size:
        report.refuse("unreadable", f"it has {made} bytes, the archive says {info.file_size}", file=info.filename)


def _tar_members(source: InputFile, report: Report, head: bytes) -> Iterator[Member]:
    compressed = head.startswith(b"\x1f\x8b")
    stream = PieceReader(inflate_pieces(source, report)) if compressed else source.open()
    try:
        with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
            for info in archive:
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    report.refuse("not_a_file", "the archive has a link, a device or a sparse file", file=info.name)
                yield Member(info.name, info.size, lambda info=info: _tar_pieces(archive, info, report))  # type: ignore[misc]
    except (tarfile.TarError, EOFError, ValueError) as error:
        report.refuse("unreadable", f"the tar file is broken: {error}")


def _tar_pieces(archive: tarfile.TarFile, info: tarfile.TarInfo, report: Report) -> Iterator[bytes]:
    member = archive.extractfile(info)
    made = 0
    try:
        while member is not None and (piece := member.read(PIECE_BYTES)):
            made += len(piece)
            yield piece
    except (tarfile.TarError, EOFError, ValueError) as error:
        report.refuse("unreadable", f"the tar file is broken: {error}", file=info.name)
    if made != info.size:
        report.refuse("unreadable", f"it has {made} bytes, the archive says {info.size}", file=info.name)


def _check_ratio(made: int, compressed: int, name: str | None, report: Report) -> None:
    if made > RATIO_FROM_BYTES and made > MOST_RATIO * max(compressed, 1):
        message = f"it grows to more than {MOST_RATIO} times its compressed size; store it without compression"
        report.refuse("bomb", message, file=name)


class PieceReader:
    """A stream of pieces as a file for `tarfile`, which reads it from front to end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer at the end."""
        parts, missing = [], size
        while missing > 0:
            if not self._rest and not (rest := next(self._pieces, b"")):
                break
            self._rest = self._rest or rest
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
