"""The isolation of the parsers: the rights that this process drops before it reads a foreign byte. Linux.

no_new_privs, then Landlock (no file can be opened outside the output folder, no TCP), limits, and a seccomp filter (see
system_calls.py). They apply to the calling thread and the threads that it starts later, so this process must have no
other thread yet: importing pyarrow or numpy starts some unless the environment of worker/prepare/launch.py is set.

`python -m worker.prepare.confine` isolates itself and prints what is in force on this machine, as JSON.
"""

# ruff: noqa: N818 - the names say what happened

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

from core.process import call_system, filter_system_calls, forbid_new_privileges, forbid_reading
from worker.prepare.system_calls import build_filter, this_machine

WALLS: Final = ("landlock", "seccomp", "rlimits")
"""The kinds of isolation; `landlock` is followed by its ABI in the list of a process, as in landlock-7."""
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


class NotConfined(Exception):
    """This machine lacks isolation that its operator requires, or this process has threads without it."""


@dataclass(frozen=True, slots=True)
class ProcessLimits:
    """Of one prepare process. No limit of processes: pyarrow aborts under it."""

    cpu_seconds: int
    file_bytes: int
    """The largest file that it may write."""
    address_bytes: int = 2 << 30
    open_files: int = 64

    @classmethod
    def for_input(cls, size: int) -> "ProcessLimits":
        """For an input of `size` bytes: half a megabyte per CPU second, and 64 times its size on disk."""
        return cls(cpu_seconds=300 + size // 500_000, file_bytes=(16 << 30) + 64 * size)


def confine_process(folder: Path, limits: ProcessLimits, *, required: bool) -> tuple[str, ...]:
    """Isolate this process; the kinds of isolation that are in force. `folder` stays readable and writable.

    Raises:
        NotConfined: a kind is missing and `required`, or this process has more than one thread.
        OSError: the kernel has a kind and refuses it to this process.
    """
    if sys.platform == "linux":
        _refuse_threads()
    forbid_reading()
    walls: list[str] = []
    if sys.platform == "linux":
        forbid_new_privileges()
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
    """The kinds that are not in force."""
    kinds = {wall.partition("-")[0] for wall in walls}
    return [wall for wall in WALLS if wall not in kinds]


def landlock_abi() -> int:
    """The version of Landlock's interface; 0: this kernel does not have it, or it is turned off."""
    try:
        return call_system(_CREATE_RULESET, None, 0, _VERSION)
    except OSError as error:
        if error.errno in {errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}:  # EPERM: by the filter of a container
            return 0
        raise


def _refuse_threads() -> None:
    count = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - no Path object is needed for a count
    if count != 1:
        raise NotConfined(f"{count} threads run already, and the isolation would apply to one of them")


def _restrict_files(folder: Path, abi: int) -> None:
    """Only `folder`, and the time zones to read; no TCP and no signals to others, as far as the ABI goes."""
    known = (1 << _FILE_RIGHTS_BY_ABI.get(abi, 16)) - 1
    network = _TCP_BIND_AND_CONNECT if abi >= 4 else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if abi >= 6 else 0
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    attributes = struct.pack("=QQQ", known, network, scoped)[:size]
    ruleset = call_system(_CREATE_RULESET, attributes, size, 0)
    try:
        _allow_below(ruleset, folder, _IN_OUTPUT & known)
        if ZONES.is_dir():
            _allow_below(ruleset, ZONES, _IN_ZONES)
        call_system(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow_below(ruleset: int, folder: Path, rights: int) -> None:
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rule = struct.pack("=Qi", rights, fd)
        call_system(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)


def _filter_system_calls() -> bool:
    """Whether this process now has the filter; False: this kernel has none, or this processor has no table."""
    machine = this_machine()
    if machine is None:
        return False
    try:
        filter_system_calls(build_filter(machine, os.getpid()))
    except OSError as error:
        if error.errno == errno.EINVAL:  # built without filters
            return False
        raise
    return True


def _set_limits(limits: ProcessLimits) -> None:
    """Soft and hard, so that they cannot be raised again; never above a limit that this process already has.

    CPU time has a later hard limit: the soft one sends SIGXCPU, which differs from a kill for memory.
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


def main() -> None:
    """For `basin doctor`: the isolation as it really is, in a folder that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if child == 0:
            walls = confine_process(Path(folder), ProcessLimits.for_input(0), required=False)
            os.write(1, json.dumps(walls).encode() + b"\n")
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


if __name__ == "__main__":
    main()
