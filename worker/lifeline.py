"""Processes that die with the one that started them, and with them everything they started.

On Linux the kernel does it (PR_SET_PDEATHSIG); everywhere else, and should the kernel miss it, the end of the pipe
to the parent does.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
ORPHANED: Final = 75  # exit status of a process that found its parent gone

# What a process that runs training code may see of our environment. An allow-list: a credential that is new to us
# must not pass because nobody thought of it.
_ALLOWED_NAMES: Final = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"})
_ALLOWED_PREFIXES: Final = ("PYTHON", "LC_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "GOMP_", "CUDA_", "NVIDIA_")
# Faster allocation for training (no change of results): glibc would give freed tensors back to the kernel at once
# and fault every page in again at the next step. One OpenBLAS thread, because NumPy's would be alive at the fork.
_SETTINGS: Final = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "OPENBLAS_NUM_THREADS": "1",
}


def clean_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of processes that run training code: no credential, no BASIN_ setting."""
    kept = {
        name: value for name, value in environ.items() if name in _ALLOWED_NAMES or name.startswith(_ALLOWED_PREFIXES)
    }
    return _SETTINGS | kept


def die_with_parent(parent: int) -> None:
    """Ask the kernel to SIGKILL this process when the thread that started it ends; exit if that has happened.

    The kernel's wish list is empty after a fork, so every process asks for itself; `parent` is the pid that must
    still be our parent afterwards, because it may have died before we asked.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(ORPHANED)


def kill_group(pid: int, signum: int) -> None:
    """Send a signal to the process group that `pid` leads; nobody there is no error."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signum)


def reap_group(pid: int) -> int:
    """Reap a child that has ended, after everything it left in its group is dead; its wait status.

    The dead leader still holds the group's number while we kill, so the signal cannot hit a stranger.
    """
    kill_group(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def tail(path: Path, limit: int = 4096) -> str:
    """The last bytes of a text file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - limit))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return text.replace("\x00", "\ufffd").strip()
