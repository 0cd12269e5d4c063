"""One lock for each device in a folder of the host, so that two workers never offer the same device."""

import contextlib
import fcntl
import hashlib
import os
import re
from pathlib import Path
from typing import Final

_PLAIN: Final = re.compile(r"[A-Za-z0-9.-]{1,80}")
_FOLDER_MODE: Final = 0o1777  # as /tmp: workers of several users share it, and no user removes another one's lock
_FILE_MODE: Final = 0o666
_KERNEL_LOCKS: Final = Path("/proc/locks")  # `1: FLOCK ADVISORY WRITE pid major:minor:inode 0 EOF`


class DeviceLocks:
    """Holds the locks of this process until `close`; the kernel gives them back when the process dies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: dict[str, int] = {}

    def try_lock(self, identity: str) -> bool:
        """Whether the device is now ours alone.

        Raises:
            OSError: the folder cannot be used.
        """
        if identity in self._held:
            return True
        self._make_folder()
        try:
            handle = _open_lock(self._folder / f"{_file_name(identity)}.lock")
        except PermissionError:
            return False  # another user is creating the file now, and will hold it
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return False
        self._held[identity] = handle
        return True

    def is_held(self, identity: str) -> bool:
        """Whether a process has the device now, as far as /proc/locks shows it. The lock is never tried:
        a worker that starts meanwhile would miss the device until its next start.
        """
        try:
            number = (self._folder / f"{_file_name(identity)}.lock").stat().st_ino
            lines = _KERNEL_LOCKS.read_text().splitlines()
        except OSError:
            return False
        return any(" FLOCK " in line and f":{number} " in line for line in lines)

    def close(self) -> None:
        """Release all locks."""
        for handle in self._held.values():
            os.close(handle)
        self._held.clear()

    def _make_folder(self) -> None:
        if not self._folder.is_dir():
            self._folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                self._folder.chmod(_FOLDER_MODE)


def _open_lock(path: Path) -> int:
    """The lock's file, made where it is missing; open to every user, whatever the umask.

    Not made and opened in one call: Linux refuses that for another user's file in such a folder (protected_regular).
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(PermissionError):  # another user has created it, and sets the mode
            os.fchmod(handle, _FILE_MODE)
        return handle


def _file_name(identity: str) -> str:
    return identity if _PLAIN.fullmatch(identity) else hashlib.sha256(identity.encode()).hexdigest()
