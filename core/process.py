"""What a process asks of the kernel for itself: to end with its parent, not to be read by others, fewer rights.

`python process.py PARENT COMMAND …` runs a command that ends with the process that started it. It is executed as a
file, isolated and without site-packages, which takes 20 ms; so this file imports only the standard library.
"""

import ctypes
import os
import signal
import struct
import sys
from collections.abc import Mapping

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
ORPHANED = 75  # exit status of a process that found its parent gone

# The environment variables that are passed to a process that needs none of our settings. An allow-list, so that a
# credential under a name that we do not know is not passed.
_ALLOWED_NAMES = frozenset({"PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH"})
_ALLOWED_PREFIXES = (
    *("PYTHON", "LC_", "OMP_", "MKL_", "KMP_", "OPENBLAS_", "GOMP_"),
    *("CUDA_", "CUDNN_", "NVIDIA_", "PYTORCH_"),  # GPU settings: devices, memory allocation, logging
)


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that holds no credential and no BASIN_ setting."""
    return {
        name: value for name, value in environ.items() if name in _ALLOWED_NAMES or name.startswith(_ALLOWED_PREFIXES)
    }


def die_with_parent(parent: int) -> None:
    """Ask the kernel to SIGKILL this process when the thread that started it ends; exit if that has happened.

    The request does not survive a fork, so every process makes it for itself. `parent` is the pid that must still be
    our parent afterwards, because the parent may have ended before the request. Linux only: on other systems the
    process has to end when its pipe is closed.
    """
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(ORPHANED)


def forbid_reading() -> None:
    """Close /proc/<pid>/environ, mem and fd of this process to other processes of the same user; Linux only.

    The runner executes training code under our user, and our environment holds the database's password. The kernel
    also writes no core dump of such a process. Children inherit this by fork and lose it by exec.
    """
    if sys.platform == "linux":
        _prctl(PR_SET_DUMPABLE, 0)


def set_process_name(name: str) -> None:
    """Set the name that /proc/<pid>/comm, ps and top show, at most 15 bytes; Linux only. A fork inherits it."""
    if sys.platform == "linux":
        _prctl(PR_SET_NAME, name.encode())


def clear_ambient_capabilities() -> None:
    """Do not pass this process's capabilities to the programs that it executes; Linux only, per thread."""
    if sys.platform == "linux":
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)


def forbid_new_privileges() -> None:
    """Programs that this process executes get no rights from their files; Linux only."""
    if sys.platform == "linux":
        _prctl(PR_SET_NO_NEW_PRIVS, 1)


def filter_system_calls(program: bytes) -> None:
    """Install a seccomp filter, an array of struct sock_filter, for this thread and those that it starts; Linux only.

    Raises:
        OSError: EINVAL where the kernel was built without filters.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(buffer)))


def call_system(number: int, *arguments: int | bytes | None) -> int:
    """Make a system call that Python does not have; its result, which is never negative.

    Raises:
        OSError: the kernel refuses it, or does not have it (ENOSYS).
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    result = int(call(ctypes.c_long(number), *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number} failed")
    return result


def signal_group(leader: int, signum: int) -> bool:
    """Send a signal to the process group that `leader` leads; False: a process in it is not ours to signal.

    A group without processes is no error. One whose processes have all ended, but are not reaped, is refused by macOS.
    """
    try:
        os.killpg(leader, signum)
    except ProcessLookupError:
        pass
    except PermissionError:
        return sys.platform != "linux"
    return True


def _prctl(option: int, value: int | bytes, pointer: int | bytes = 0) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, pointer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value!r}) failed")


def main(parent: int, command: list[str]) -> None:
    """Replace this process by the command, which keeps the request of `die_with_parent`."""
    die_with_parent(parent)
    os.execv(command[0], command)  # noqa: S606 - the command is our parent's


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
