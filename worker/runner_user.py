"""Runners under a separate user, who can neither read the worker's secrets nor send it a signal.

The worker is not root either: its start command (see docker-compose.yml) gives it three ambient capabilities. The
worker removes them from the ambient set, so that only this process has them and no exec inherits them. KILL is for
ending runners, by the worker or by the kernel's death signal, which needs the same right.
"""

import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import Misconfigured
from core.process import clear_ambient_capabilities

if TYPE_CHECKING:
    from core.settings import Settings

SETTING: Final = "BASIN_RUNNER_USER"
UMASK: Final = 0o027  # of the worker: only runners read the files in a folder of their group
RUNNER_UMASK: Final = 0o007  # of the runners: the worker moves and removes what they write
PASSAGE: Final = 0o710  # a folder that runners pass through
INPUTS: Final = 0o2710  # a folder without listing: they open files by name, and read all that the worker makes there
OUTPUTS: Final = 0o2770  # a folder that they write in
LOG: Final = 0o660
_KILL, _SETGID, _SETUID = 5, 6, 7
_NEEDED: Final = 1 << _KILL | 1 << _SETGID | 1 << _SETUID


@dataclass(frozen=True)
class RunnerUser:
    """The user of the runners, and the group by which the worker shares files with them."""

    uid: int
    gid: int
    home: str

    @property
    def popen_options(self) -> dict[str, Any]:
        """The arguments for subprocess.Popen."""
        return {"user": self.uid, "group": self.gid, "extra_groups": [self.gid], "umask": RUNNER_UMASK}

    def share_path(self, path: Path, mode: int) -> None:
        """Give the runners' group these rights; the owner of the path stays the worker."""
        os.chown(path, -1, self.gid)
        path.chmod(mode)


def prepare_runner_user(settings: "Settings") -> RunnerUser | None:
    """Prepare folders and rights for the runners' user; None: runners have the user of the worker.

    Must be called before this process has threads: capabilities belong to each thread.

    Raises:
        Misconfigured: there is no such user, or this process may not start others as that user.
    """
    if settings.runner_user is None:
        return None
    user = find_user(settings.runner_user)
    if sys.platform != "linux" or _effective_capabilities() & _NEEDED != _NEEDED:
        raise Misconfigured(f"{SETTING} needs Linux and a worker with the capabilities KILL, SETGID and SETUID")
    clear_ambient_capabilities()
    os.umask(UMASK)
    try:
        for folder, mode in ((settings.home, PASSAGE), (settings.scratch, PASSAGE), (settings.datasets, INPUTS)):
            folder.mkdir(parents=True, exist_ok=True)
            user.share_path(folder, mode)
        for file in settings.datasets.iterdir():  # written by a worker without such a user
            if file.is_file():
                user.share_path(file, 0o640)
    except PermissionError as error:
        found = f"{SETTING}: {error.filename} cannot be shared with group {user.gid}"
        raise Misconfigured(f"{found}; the worker must own it and be in that group") from error
    return user


def find_user(name: str) -> RunnerUser:
    """The user of this name or uid, which must not be the worker's own, and not root.

    Raises:
        Misconfigured: there is none.
    """
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    except KeyError as error:
        raise Misconfigured(f"{SETTING}: there is no user {name}") from error
    if entry.pw_uid in {0, os.getuid()}:
        raise Misconfigured(f"{SETTING}: {name} is {'the worker itself' if entry.pw_uid else 'root'}; name another")
    return RunnerUser(entry.pw_uid, entry.pw_gid, entry.pw_dir)


def _effective_capabilities() -> int:
    """Those in effect in this thread, as the kernel's bits."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    return next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
