"""Runs a command that dies with whoever started it: `python tether.py PARENT COMMAND …`.

On Linux the kernel then kills the command when its parent is killed, even by SIGKILL; it follows the *thread* that
started us, so that has to be one that lives as long as the parent. Elsewhere the command outlives such a parent.
Executed as a file, isolated and without site-packages: 20 ms.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
ORPHANED = 75  # the parent was gone before we asked


def main(parent: int, command: list[str]) -> None:
    """Replaces this process by the command; `parent` is the pid that must be our parent still."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(ORPHANED)
    os.execv(command[0], command)  # noqa: S606 - the command is our parent's


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
