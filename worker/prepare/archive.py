"""Members of an uploaded zip or tar, read with bounds. Nothing is ever extracted to a name from the archive."""

import contextlib
import gzip
import io
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, Final

from worker.prepare.report import Report
from worker.prepare.source import InputFile, InputReader

PIECE_BYTES: Final = 64 << 10
MEMBER_BYTES: Final = 256 << 20
"""The largest member that is read."""
MOST_MEMBERS: Final = 1_000_000
RATIO: Final = 200
"""How many times larger than its compressed form a member may be, after its first RATIO_FROM bytes."""
RATIO_FROM: Final = 1 << 20
TOTAL_FROM: Final = 1 << 30
IGNORED_NAMES: Final = frozenset({"Thumbs.db", "desktop.ini"})
IGNORED_FOLDERS: Final = frozenset({"__MACOSX"})
_ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class ArchiveMember:
    """One regular file of an archive. `name` is normalised (NFC) and relative; `read` may be called once, in order."""

    name: str
    read: Callable[[], bytes]

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.name).parts


def iterate_members(source: InputFile, report: Report) -> Iterator[ArchiveMember]:
    """The regular files of a zip, tar or tar.gz in their order; hidden files are left out.

    Raises Refused for an archive that is damaged or whose names could leave a folder.
    """
    head = source.read_at(0, 4)
    if head.startswith(b"PK"):
        members = _zip_members(source, report)
    elif head.startswith(_GZIP):
        members = _tar_members(gzip.GzipFile(fileobj=_buffered(source)), report, max(TOTAL_FROM, RATIO * source.size))
    else:
        members = _tar_members(source.open(), report, max(TOTAL_FROM, source.size))
    seen: set[str] = set()
    for member in members:
        if len(seen) >= MOST_MEMBERS:
            report.refuse("too_many_files", f"the archive has more than {MOST_MEMBERS:,} files")
        if member.name in seen:
            report.refuse("duplicate_file", "the archive has this name twice", file=member.name)
        seen.add(member.name)
        if not _is_hidden(member.parts):
            yield member


def _buffered(source: InputFile) -> io.BufferedReader:
    return io.BufferedReader(source.open(), PIECE_BYTES)


def _is_hidden(parts: tuple[str, ...]) -> bool:
    return any(part.startswith(".") or part in IGNORED_FOLDERS for part in parts) or parts[-1] in IGNORED_NAMES


def check_name(name: str, report: Report) -> str:
    """The name in normal form. Raises Refused where it could reach out of a folder."""
    path = PurePosixPath(name)
    bad = name.startswith("/") or "\\" in name or "\x00" in name or ".." in path.parts or not path.parts
    if bad or (len(name) > 1 and name[1] == ":"):
        report.refuse("bad_name", "this name is not relative to the archive", file=name)
    return unicodedata.normalize("NFC", path.as_posix())


# ---- zip


def _zip_members(source: InputFile, report: Report) -> Iterator[ArchiveMember]:
    try:
        archive = zipfile.ZipFile(source.open())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        report.refuse("bad_archive", f"the zip cannot be read: {error}")
    with archive:
        entries = archive.infolist()
        for number, info in enumerate(entries):
            report.progress(number, len(entries))
            if info.is_dir():
                continue
            name = check_name(info.filename, report)
            _check_entry(info, name, report)
            yield ArchiveMember(name, partial(_read_entry, archive, info, name, report))


def _check_entry(info: zipfile.ZipInfo, name: str, report: Report) -> None:
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        report.refuse("not_a_file", "this is a link or a device, not a file", file=name)
    if info.flag_bits & 1:
        report.refuse("encrypted", "this file is encrypted; upload it without a password", file=name)
    if info.compress_type not in _ZIP_METHODS:
        report.refuse("bad_compression", "this file is neither stored nor deflated", file=name)


def _read_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str, report: Report) -> bytes:
    try:
        with archive.open(info) as content:
            return _read_bounded(content, name, report, info.compress_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError):
            raise  # a module that should have been loaded before the process was confined
        report.refuse("bad_archive", f"this file cannot be unpacked: {error}", file=name)


# ---- tar


def _tar_members(file: IO[bytes] | InputReader | gzip.GzipFile, report: Report, most: int) -> Iterator[ArchiveMember]:
    bounded = _BoundedReader(file, most, report)
    try:
        with tarfile.open(fileobj=bounded, mode="r|") as archive:  # type: ignore[call-overload]  # it has `read`
            for number, info in enumerate(archive):
                report.progress(number, None)
                if info.isdir():
                    continue
                name = check_name(info.name, report)
                if not info.isreg():
                    report.refuse("not_a_file", "this is a link or a device, not a file", file=name)
                yield ArchiveMember(name, partial(_read_bounded, archive.extractfile(info), name, report))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        if isinstance(error, PermissionError):
            raise
        report.refuse("bad_archive", f"the tar cannot be read: {error}")


class _BoundedReader:
    """`read` of a file, until more than `most` bytes have come out of it."""

    def __init__(self, file: IO[bytes] | InputReader | gzip.GzipFile, most: int, report: Report) -> None:
        self._file = file
        self._left = most
        self._report = report

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(size)
        self._left -= len(found)
        if self._left < 0:
            self._report.refuse("archive_bomb", f"the archive unpacks to more than {RATIO} times its size")
        return found

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


def _read_bounded(content: Any, name: str, report: Report, compressed: int | None = None) -> bytes:
    """The whole member in pieces, as long as it is neither too large nor grows out of proportion."""
    pieces, total = [], 0
    while piece := content.read(PIECE_BYTES):
        total += len(piece)
        if total > MEMBER_BYTES:
            report.refuse("too_large", f"this file has more than {MEMBER_BYTES >> 20} MiB", file=name)
        if compressed is not None and total > RATIO_FROM and total > RATIO * max(1, compressed):
            report.refuse("archive_bomb", f"this file unpacks to more than {RATIO} times its size", file=name)
        pieces.append(piece)
    return b"".join(pieces)
