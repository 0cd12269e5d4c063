"""The kernel's out-of-memory killer: which process it should choose, and how often it has killed one."""

import contextlib
from pathlib import Path
from typing import Final

KILL_ME_FIRST: Final = 500  # of the thousand points by which the kernel chooses
_ADJUSTMENT: Final = Path("/proc/self/oom_score_adj")


def prefer_as_oom_victim() -> None:
    """Have the kernel kill this process for memory before the worker that started it, or a database beside it."""
    with contextlib.suppress(OSError, ValueError):
        _ADJUSTMENT.write_text(str(min(1000, int(_ADJUSTMENT.read_text()) + KILL_ME_FIRST)))


def oom_kills(groups: Path = Path("/proc/self/cgroup"), mounts: Path = Path("/sys/fs/cgroup")) -> int:
    """How many processes of our control group the kernel has killed for memory so far; 0 where it does not say."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return 0
    found = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return sum(_kills_of(controllers, group, mounts) for _, controllers, group in found)


def _kills_of(controllers: str, group: str, mounts: Path) -> int:
    """The kills of one line of /proc/self/cgroup. Version 2 names no controllers; beside version 1 it is in `unified`.

    In a container the own group may be the root of the mount, under another name than on the host.
    """
    if not controllers:
        files = [(mounts, "memory.events"), (mounts / "unified", "memory.events")]
    elif "memory" in controllers.split(","):
        files = [(mounts / controllers, "memory.oom_control"), (mounts / "memory", "memory.oom_control")]
    else:
        return 0
    for mount, name in files:
        for folder in (mount / group.lstrip("/"), mount):
            with contextlib.suppress(OSError, ValueError):
                facts = dict(line.split() for line in (folder / name).read_text().splitlines())
                return int(facts.get("oom_kill", "0"))
    return 0
