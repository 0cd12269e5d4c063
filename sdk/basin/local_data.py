"""Data of this machine as one stream of bytes: a file, a folder, a DataFrame, arrays."""

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from basin.errors import BadFile

BLOCK: Final = 1 << 20
IN_MEMORY: Final = 64 << 20  # bytes of a temporary file before it goes to the disk
NPY_PREFIX: Final = 10  # bytes before the header: magic, version, length
ReportBytes = Callable[[int, int], None]
"""(bytes done, bytes in all)"""


@dataclass(frozen=True, slots=True)
class LocalData:
    """An open file with the bytes to upload; `format` is empty where the service finds it out."""

    file: IO[bytes]
    bytes: int
    sha256: str
    filename: str
    format: str = ""


@contextmanager
def open_local_data(source: Any, report: ReportBytes = lambda _done, _all: None) -> Iterator[LocalData]:
    """The bytes of a path, a pandas or polars DataFrame, an array, or a mapping of arrays.

    A folder becomes a tar whose bytes depend on the names and contents of its files alone, so that the same folder has
    the same digest on every machine. Raises BadFile for anything else, and for a path that cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        path = Path(source).expanduser()
        with _open_path(path) as file:
            yield _described(file, last_part(path), "", report)
        return
    with tempfile.SpooledTemporaryFile(IN_MEMORY) as file:
        format_ = _write_object(source, file)
        yield _described(file, "", format_, report)


def last_part(path: Path) -> str:
    """The name of a file or folder, also where the path ends with `.` or `..`."""
    return path.name if path.name.strip(".") else path.resolve().name


def _described(file: IO[bytes], filename: str, format_: str, report: ReportBytes) -> LocalData:
    """Reads the file once for its size and digest."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    digest, done = hashlib.sha256(), 0
    while block := file.read(BLOCK):
        digest.update(block)
        done += len(block)
        report(done, size)
    file.seek(0)
    return LocalData(file, done, digest.hexdigest(), filename, format_)


@contextmanager
def _open_path(path: Path) -> Iterator[IO[bytes]]:
    try:
        if path.is_dir():
            with tempfile.TemporaryFile() as file:
                write_folder_tar(path, file)
                yield file
            return
        if path.exists() and not path.is_file():  # a device or a pipe may have no end
            raise BadFile(f"{path} is neither a file nor a folder")
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise BadFile(f"{error.filename or path}: {error.strerror or error}") from error


def write_folder_tar(folder: Path, file: IO[bytes]) -> None:
    """Writes the regular files below `folder` as a tar with sorted names and no times, owners or modes.

    Hidden files and folders are left out. Raises BadFile for a symbolic link and for a folder without files.
    """
    members = sorted(_visible_files(folder), key=lambda each: each.as_posix())
    if not members:
        raise BadFile(f"{folder}: there are no files in this folder")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            with (folder / member).open("rb") as content:
                entry = tarfile.TarInfo(member.as_posix())
                entry.size = os.fstat(content.fileno()).st_size
                archive.addfile(entry, content)


def _visible_files(folder: Path) -> Iterator[Path]:
    """Paths relative to `folder`."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink():
                raise BadFile(f"{path}: a symbolic link is not uploaded; put the file itself there")
            if name in names and not name.startswith(".") and path.is_file():
                yield path.relative_to(folder)


def _write_object(source: Any, file: IO[bytes]) -> str:
    """Writes a DataFrame as CSV, an array as npy, a mapping of arrays as npz. Returns the format."""
    if hasattr(source, "write_csv"):  # polars
        file.write(source.write_csv().encode())
        return "csv"
    if hasattr(source, "to_csv"):  # pandas
        file.write(source.to_csv(index=False).encode())
        return "csv"
    if hasattr(source, "__array__"):
        _write_npy(source.__array__(), file)
        return "npy"
    if isinstance(source, Mapping) and source:
        _write_npz(source, file)
        return "npz"
    raise BadFile(f"cannot upload {type(source).__name__}: give a path, a DataFrame, an array or a dict of arrays")


def _write_npz(arrays: Mapping[str, Any], file: IO[bytes]) -> None:
    """Writes what numpy.savez writes, but with fixed times, so that equal arrays have equal bytes."""
    import zipfile

    for name, array in arrays.items():
        if not hasattr(array, "__array__"):
            raise BadFile(f"{name} is {type(array).__name__}, not an array")
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                _write_npy(array.__array__(), member)


def _write_npy(array: Any, file: IO[bytes]) -> None:
    """Writes a NumPy array in version 1.0 of its format. The client itself does not need NumPy."""
    if array.dtype.hasobject:
        raise BadFile("an array of Python objects cannot be uploaded; give numbers, booleans or text")
    shape = "".join(f"{size}, " for size in array.shape)
    header = f"{{'descr': {array.dtype.str!r}, 'fortran_order': False, 'shape': ({shape.rstrip()}), }}"
    padded = header + " " * (-(NPY_PREFIX + len(header) + 1) % 64) + "\n"
    file.write(b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("latin-1"))
    file.write(array.tobytes())
