"""The system calls that a parser needs, by machine, and the seccomp filter that allows no others.

An allow-list, because a list of what is dangerous is never whole: it would have to name UDP, io_uring, ptrace,
setpriority on the parent, and what the next kernel brings. A call that is not on it fails with EPERM.
"""

import errno
import platform
import struct
from typing import Final, NamedTuple

_COMMON: Final = {
    "read": (0, 63),
    "write": (1, 64),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "preadv2": (327, 286),
    "lseek": (8, 62),
    "close": (3, 57),
    "dup": (32, 23),
    "openat": (257, 56),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "mkdirat": (258, 34),
    "unlinkat": (263, 35),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "ftruncate": (77, 46),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "memfd_create": (319, 279),
    "pipe2": (293, 59),
    "ppoll": (271, 73),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "membarrier": (324, 283),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "mbind": (237, 235),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "setitimer": (38, 103),
    "restart_syscall": (219, 128),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrusage": (98, 165),
    "getrandom": (318, 278),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""Name -> its number on x86_64 and on aarch64."""
_X86_64_ONLY: Final = {
    "open": 2,
    "stat": 4,
    "lstat": 6,
    "poll": 7,
    "access": 21,
    "rename": 82,
    "mkdir": 83,
    "rmdir": 84,
    "unlink": 87,
    "time": 201,
}
_CLONE3: Final = 435
_OLDER_ABI: Final = 0x40000000  # x32: the same calls under other numbers

CLONE_THREAD: Final = 0x00010000
CLONE_NAMESPACES: Final = 0x7E020080  # every CLONE_NEW… flag
TCGETS: Final = 0x5401
FIOCLEX: Final = 0x5451
FILE_COMMANDS: Final = (0, 1, 2, 3, 4, 1030, 1033, 1034)
"""fcntl: duplicate, flags, seals. None that names an owner: F_SETOWN sends signals to it."""

_LOAD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN: Final = 0x06  # BPF_RET | BPF_K
_ALLOW: Final = 0x7FFF0000
_KILL: Final = 0x80000000
_REFUSE: Final = 0x00050000 | errno.EPERM
_ABSENT: Final = 0x00050000 | errno.ENOSYS
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


class Machine(NamedTuple):
    """One kind of processor, as the kernel names it in a filter, and its numbers of special calls."""

    column: int
    architecture: int
    clone: int
    kill: int
    tgkill: int
    ioctl: int
    fcntl: int
    prlimit: int


MACHINES: Final = {
    "x86_64": Machine(0, 0xC000003E, 56, 62, 234, 16, 72, 302),
    "aarch64": Machine(1, 0xC00000B7, 220, 129, 131, 29, 25, 261),
}


def this_machine() -> Machine | None:
    """None: there is no table for this processor."""
    return MACHINES.get(platform.machine())


def build_filter(machine: Machine, pid: int) -> bytes:
    """The program for the process `pid`, as an array of struct sock_filter.

    Threads may start, processes not. Signals go to the process itself alone. Limits may be read, not set.
    """
    program = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, machine.architecture, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        _step(_AT_LEAST, _OLDER_ABI, 0, 1),
        _step(_RETURN, _ABSENT),
        *_answer(_CLONE3, _ABSENT),  # its flags are in memory, which a filter cannot read; the C library takes clone
    ]
    for number in _allowed_numbers(machine):
        program += _answer(number, _ALLOW)
    program += _checked(machine.clone, [*_refuse_bits(0, CLONE_NAMESPACES), *_require_bits(0, CLONE_THREAD)])
    for signal_call in (machine.kill, machine.tgkill):
        program += _checked(signal_call, _require_values(0, (pid,)))
    program += _checked(machine.ioctl, _require_values(1, (TCGETS, FIOCLEX)))
    program += _checked(machine.fcntl, _require_values(1, FILE_COMMANDS))
    program += _checked(machine.prlimit, [*_require_values(0, (0, pid)), *_require_zero(2)])
    program.append(_step(_RETURN, _REFUSE))
    return b"".join(program)


def _allowed_numbers(machine: Machine) -> list[int]:
    numbers = [each[machine.column] for each in _COMMON.values()]
    return [*numbers, *_X86_64_ONLY.values()] if machine.column == 0 else numbers


def _step(code: int, operand: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, operand)


def _answer(number: int, action: int) -> list[bytes]:
    return [_step(_EQUAL, number, 0, 1), _step(_RETURN, action)]


def _checked(number: int, checks: list[bytes]) -> list[bytes]:
    """The call is allowed where the checks do not refuse it. They end the program or fall through."""
    return [_step(_EQUAL, number, 0, len(checks) + 1), *checks, _step(_RETURN, _ALLOW)]


def _low_word(argument: int) -> bytes:
    """Load the low half of an argument; flags, pids and commands have 32 bits, both machines are little-endian."""
    return _step(_LOAD, _ARGUMENTS + 8 * argument)


def _require_values(argument: int, values: tuple[int, ...]) -> list[bytes]:
    tests = [_step(_EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    return [_low_word(argument), *tests, _step(_RETURN, _REFUSE)]


def _require_bits(argument: int, bits: int) -> list[bytes]:
    return [_low_word(argument), _step(_ANY_BIT, bits, 1, 0), _step(_RETURN, _REFUSE)]


def _refuse_bits(argument: int, bits: int) -> list[bytes]:
    return [_low_word(argument), _step(_ANY_BIT, bits, 0, 1), _step(_RETURN, _REFUSE)]


def _require_zero(argument: int) -> list[bytes]:
    """Both halves of a pointer."""
    checks = []
    for half in (0, 4):
        offset = _ARGUMENTS + 8 * argument + half
        checks += [_step(_LOAD, offset), _step(_EQUAL, 0, 1, 0), _step(_RETURN, _REFUSE)]
    return checks
