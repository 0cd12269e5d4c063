"""A file without a name: it takes space as long as a descriptor of it is open, and no other process can open it."""

import os
from pathlib import Path


def open_unlinked(folder: Path) -> tuple[int, int]:
    """A new file without a name, as two descriptors: one to write, one that can only read."""
    path = folder / "source"
    writer = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        reader = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except BaseException:
        os.close(writer)
        raise
    finally:
        path.unlink()
    return writer, reader
