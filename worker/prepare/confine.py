"""The walls around the parsers: what this process gives up before it reads a foreign byte. Linux, by ctypes.

no_new_privs, then Landlock (no file may be opened but in the output folder, no TCP), limits, and a seccomp filter (see
system_calls.py). They hold for the calling thread and the threads that it starts later, so this process must have no
other thread yet: importing pyarrow or numpy starts some unless the environment of worker/prepare/launch.py is set.

`python -m worker.prepare.confine` confines itself and prints the walls that this machine has, as JSON.
"""

# ruff: noqa: N818 - the names say what happened

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.process import forbid_reading
from worker.prepare.system_calls import build_filter, this_machine

WALLS: Final = ("landlock", "seccomp", "rlimits")
"""All of them; `landlock` is followed by its ABI in the list of a process, as in landlock-7."""
ZONES: Final = Path("/usr/share/zoneinfo")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine
_VERSION: Final = 1  # flag: answer with the ABI
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _TRUNCATE = 1 << 7, 1 << 8, 1 << 14
_IN_ZONES: Final = _READ_FILE | _READ_DIR
_IN_OUTPUT: Final = _IN_ZONES | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
_FILE_RIGHTS_BY_ABI: Final = {1: 13, 2: 14, 3: 15, 4: 15}
"""ABI -> how many kinds of access to files it knows; 16 from 5 on."""
_TCP_BIND_AND_CONNECT: Final = 0b11
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 0b11
LAST_CPU_SECONDS: Final = 5
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2


class NotConfined(Exception):
    """This machine lacks walls that its operator demands, or this process has threads that they would not bind."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one prepare process. No limit of processes: pyarrow aborts under it."""

    cpu_seconds: int
    file_bytes: int
    """The largest file that it may write."""
    address_bytes: int = 2 << 30
    open_files: int = 64

    @classmethod
    def for_input(cls, size: int) -> "Limits":
        """For an input of `size` bytes: half a megabyte per CPU second, and 64 times its size on disk."""
        return cls(cpu_seconds=300 + size // 500_000, file_bytes=(16 << 30) + 64 * size)


def confine_process(folder: Path, limits: Limits, *, required: bool) -> tuple[str, ...]:
    """Raise the walls around this process; those that are in force. `folder` stays readable and writable.

    Raises:
        NotConfined: a wall is missing and `required`, or this process has more than one thread.
        OSError: the kernel has a wall and refuses to raise it.
    """
    if sys.platform == "linux":
        _refuse_threads()
    forbid_reading()
    walls: list[str] = []
    if sys.platform == "linux":
        _call_prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if abi := landlock_abi():
            _restrict_files(folder, abi)
            walls.append(f"landlock-{abi}")
    _set_limits(limits)
    if sys.platform == "linux" and _filter_system_calls():
        walls.append("seccomp")
    walls.append("rlimits")
    if required and (missing := missing_walls(walls)):
        raise NotConfined(f"this machine cannot confine the parser: it has no {' and no '.join(missing)}")
    return tuple(walls)


def missing_walls(walls: list[str]) -> list[str]:
    """Those of WALLS that are not in force."""
    kinds = {wall.partition("-")[0] for wall in walls}
    return [wall for wall in WALLS if wall not in kinds]


def landlock_abi() -> int:
    """The version of Landlock's interface; 0: this kernel does not have it, or it is turned off."""
    return max(0, _call_system(_CREATE_RULESET, None, 0, _VERSION))


def _refuse_threads() -> None:
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - no Path object is needed for a count
    if count != 1:
        raise NotConfined(f"{count} threads run before the walls, which would bind only one of them")


def _call_system(number: int, *arguments: int | bytes | None) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    words = (ctypes.c_long(each) if isinstance(each, int) else each for each in arguments)
    return int(call(ctypes.c_long(number), *words))


def _call_prctl(option: int, value: int, pointer: bytes | int = 0) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, pointer, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _restrict_files(folder: Path, abi: int) -> None:
    """Only `folder`, and the time zones to read; no TCP and no signals to others, as far as the ABI goes."""
    known = (1 << _FILE_RIGHTS_BY_ABI.get(abi, 16)) - 1
    network = _TCP_BIND_AND_CONNECT if abi >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("=QQQ", known, network, scoped)[:size]
    ruleset = _check(_call_system(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    try:
        _allow_below(ruleset, folder, _IN_OUTPUT & known)
        if ZONES.is_dir():
            _allow_below(ruleset, ZONES, _IN_ZONES)
        _check(_call_system(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow_below(ruleset: int, folder: Path, rights: int) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, fd)
        _check(_call_system(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), "landlock_add_rule")
    finally:
        os.close(fd)


def _filter_system_calls() -> bool:
    """Whether this process now has the filter; False: this kernel has none, or this processor has no table."""
    machine = this_machine()
    if machine is None:
        return False
    code = build_filter(machine, os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    try:
        _call_prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program)
    except OSError as error:
        if error.errno == errno.EINVAL:  # built without filters
            return False
        raise
    return True


def _set_limits(limits: Limits) -> None:
    """Soft and hard, so that they cannot be raised again; never above a limit that this process already has.

    CPU time has a later hard limit: the soft one sends SIGXCPU, which tells it from a kill for memory.
    """
    wanted = {
        resource.RLIMIT_CPU: (limits.cpu_seconds, limits.cpu_seconds + LAST_CPU_SECONDS),
        resource.RLIMIT_FSIZE: (limits.file_bytes, limits.file_bytes),
        resource.RLIMIT_NOFILE: (limits.open_files, limits.open_files),
        resource.RLIMIT_CORE: (0, 0),
    }
    if platform.system() == "Linux":  # macOS refuses it
        wanted[resource.RLIMIT_AS] = (limits.address_bytes, limits.address_bytes)
    for kind, (soft, hard) in wanted.items():
        present = resource.getrlimit(kind)[1]
        most = hard if present == resource.RLIM_INFINITY else min(hard, present)
        resource.setrlimit(kind, (min(soft, most), most))


def _check(result: int, what: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what} failed")
    return result


def main() -> None:
    """For `basin doctor`: the walls as they really are, in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            walls = confine_process(Path(folder), Limits.for_input(0), required=False)
            os.write(1, json.dumps(walls).encode() + b"\n")
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
