"""A folder as one file: a tar whose bytes depend on names and contents alone. The client makes the same one."""

# ruff: noqa: N818 - UnusableFolder says what it is

import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


class UnusableFolder(Exception):
    """The folder has a symbolic link, or no file, or a file of it was changed while it was read."""


def content_state(fd: int) -> tuple[int, int]:
    """Size and time of the last change; the same before and after reading: every byte is of one state of the file."""
    found = os.fstat(fd)
    return found.st_size, found.st_mtime_ns


def write_folder_tar(folder: Path, file: IO[bytes], check: Callable[[], None] = lambda: None) -> None:
    """Write the regular files below `folder` with sorted names and no times, owners or modes; `check` is called before
    each. Hidden files and folders are left out.

    Raises:
        UnusableFolder: the message names the reason.
        OSError: a file cannot be read, or the disk does not take the tar.
    """
    members = sorted(_visible_files(folder), key=Path.as_posix)
    if not members:
        raise UnusableFolder("there are no files in the folder")
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            check()
            fd = os.open(folder / member, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(fd, "rb") as content:
                entry = tarfile.TarInfo(member.as_posix())
                before = content_state(fd)
                entry.size = before[0]
                changed = UnusableFolder(f"{member} was changed while it was read")
                try:
                    archive.addfile(entry, content)
                except OSError as error:
                    if error.errno is not None:
                        raise
                    raise changed from error  # it has fewer bytes than when it was opened
                if content_state(fd) != before:
                    raise changed


def folder_bytes(folder: Path) -> int:
    """The bytes of the files that `write_folder_tar` writes."""
    return sum((folder / member).stat().st_size for member in _visible_files(folder))


def _visible_files(folder: Path) -> Iterator[Path]:
    """Paths relative to `folder`."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink():
                raise UnusableFolder(f"{path.relative_to(folder)} is a symbolic link")
            if name in names and not name.startswith(".") and path.is_file():
                yield path.relative_to(folder)
