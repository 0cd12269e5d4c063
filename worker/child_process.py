"""The child processes of a worker: their environment, process groups, exit status and output."""

import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from core.process import signal_group, without_secrets

log = logging.getLogger(__name__)

# Faster allocation for training (no change of results): glibc would give freed tensors back to the kernel at once
# and fault every page in again at the next step. One OpenBLAS thread, because NumPy's would be alive at the fork.
_SETTINGS: Final = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "OPENBLAS_NUM_THREADS": "1",
}
# Variables that change bits and are not in the plan: fp32 as TF32, and matrix kernels chosen by timing.
_OTHER_BITS: Final = ("NVIDIA_TF32_OVERRIDE", "PYTORCH_TUNABLEOP_")
_SAME_BITS: Final = ("NVIDIA_TF32_OVERRIDE", "0")  # fp32 stays fp32, as in the plan


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of processes that run training code: no credential, no BASIN_ setting, and no
    variable that changes bits without being in the plan.
    """
    allowed = without_secrets(environ).items()
    kept = {name: value for name, value in allowed if not name.startswith(_OTHER_BITS) or (name, value) == _SAME_BITS}
    return _SETTINGS | kept


class RunningClock:
    """Seconds for which this process was running: each reading adds at most `longest`, however long it was stopped.

    A worker that was stopped together with its zygote (SIGSTOP to the group, a paused container) has received
    no answers when it continues, although CLOCK_MONOTONIC has counted that time.
    """

    def __init__(self, longest: float) -> None:
        self._longest = longest
        self._read_at = time.monotonic()
        self._seconds = 0.0

    def read(self) -> float:
        now = time.monotonic()
        self._seconds += min(now - self._read_at, self._longest)
        self._read_at = now
        return self._seconds


def kill_group(pid: int, signum: int) -> None:
    """Send a signal to the group that `pid` leads; an empty group is no error, another user's group a warning."""
    if not signal_group(pid, signum):
        log.warning("the process group %d runs on: we may not send it signal %d", pid, signum)


def reap_group(pid: int) -> int:
    """Kill what is left in the group of a child that has ended, then reap the child; its wait status.

    The zombie still holds the group's number, so the signal cannot reach a process of another group.
    """
    kill_group(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def zombie_status(pid: int, parent: int) -> int | None:
    """The wait status of a child that has ended and that `parent` has not reaped; None: there is no such child.

    It is also 0 where the kernel hides it from this process: the child ran under another user.
    """
    fields = _read_stat(pid)
    return int(fields[49]) if fields and fields[0] == "Z" and int(fields[1]) == parent else None


def has_exited(pid: int, parent: int) -> bool:
    """Whether a child of `parent` has ended, reaped or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    return zombie_status(pid, parent) is not None


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie counts as ended."""
    fields = _read_stat(pid)
    return not fields or fields[0] in {"Z", "X"}


def _read_stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat after the command's name, from the state on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def read_tail(path: Path, limit: int = 4096) -> str:
    """The last bytes of a text file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text.replace("\x00", "\ufffd").strip()
