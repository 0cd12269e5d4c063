"""How a prepare process ended -> what becomes of its dataset. Pure functions, used on both sides of the pipe.

The same bytes give the same end, except where the machine is at fault. So a file is never tried again after it was
refused, was too large for the limits or crashed its parser; and memory is never reported as a corrupt file.
"""

import errno
import signal
from enum import StrEnum
from typing import Any, Final

from worker.exit_codes import MACHINE_FAILED
from worker.launcher import ProcessExit
from worker.prepare.report import Refused, escape_text

MACHINE_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ESTALE})
"""Unlike core.machine_failure, without memory and descriptors: these are limits of the process here."""
LIMIT_ERRNOS: Final = frozenset({errno.ENOMEM, errno.EFBIG, errno.EMFILE, errno.EAGAIN})
BAD_FILE: Final = frozenset({"ArrowInvalid", "BadZipFile", "BadGzipFile", "UnidentifiedImageError", "ReadError"})
"""Names of errors of parsers that mean a bad file; their libraries are not imported here."""
TOO_LARGE_SIGNALS: Final = frozenset({signal.SIGABRT, signal.SIGXCPU, signal.SIGXFSZ})
CRASH_SIGNALS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGSYS, signal.SIGILL, signal.SIGFPE})
_NO_THREAD: Final = ("Failed to launch worker thread", "can't start new thread")
TOO_LARGE: Final = "Preparing the file needs more memory, time or disk than a worker allows."
CRASHED: Final = "The parser crashed on this file."


class Verdict(StrEnum):
    """What follows from the end of a prepare process."""

    READY = "ready"
    STOPPED = "stopped"
    """As ordered."""
    REFUSED = "refused"
    """The file is bad; the errors say why."""
    TOO_LARGE = "too_large"
    """The file does not fit into the limits: refused."""
    CRASH = "crash"
    """The parser crashed, or has a bug: refused, and counted."""
    RETRY = "retry"
    """The machine failed, not the file: try again."""


def judge(exit_: ProcessExit | None, ended: dict[str, Any] | None, *, timed_out: bool) -> Verdict:
    """The verdict on a process, from its `ended` frame, its exit, and whether its supervisor's watchdog killed it."""
    if ended is not None:
        return _judge_report(ended)
    if timed_out:
        return Verdict.TOO_LARGE
    if exit_ is None or exit_.signal in {signal.SIGKILL, signal.SIGTERM}:  # for memory, or by the machine's operator
        return Verdict.RETRY
    if exit_.signal in TOO_LARGE_SIGNALS:
        return Verdict.TOO_LARGE
    return Verdict.RETRY if exit_.code == MACHINE_FAILED else Verdict.CRASH


def _judge_report(ended: dict[str, Any]) -> Verdict:
    match ended.get("outcome"), (ended.get("error") or {}).get("code"):
        case "succeeded", _:
            return Verdict.READY
        case "stopped", _:
            return Verdict.STOPPED
        case "failed", "bad_file":
            return Verdict.REFUSED
        case "failed", "too_large":
            return Verdict.TOO_LARGE
        case "failed", "machine_failed":
            return Verdict.RETRY
        case _:
            return Verdict.CRASH


def refusal_document(verdict: Verdict) -> dict[str, Any]:
    """The one entry of `errors` for a verdict that came without any."""
    details = {Verdict.TOO_LARGE: TOO_LARGE, Verdict.CRASH: CRASHED}
    return {"code": str(verdict), "detail": details[verdict], "file": None, "row": None, "column": None}


def failure_document(error: BaseException) -> dict[str, Any]:
    """The `error` of the last frame for an exception of a parser: code, message and, for a bad file, `errors`."""
    if isinstance(error, Refused):
        return {
            "code": "bad_file",
            "message": "The file cannot be used as it is.",
            "errors": [problem.as_document() for problem in error.errors],
        }
    if _is_limit(error):
        return {"code": "too_large", "message": TOO_LARGE, "errors": [refusal_document(Verdict.TOO_LARGE)]}
    if isinstance(error, OSError) and error.errno in MACHINE_ERRNOS:
        return {"code": "machine_failed", "message": str(error.strerror)}
    text = escape_text(str(error) or type(error).__name__)
    if type(error).__name__ in BAD_FILE:
        problem = {"code": "unreadable", "detail": text, "file": None, "row": None, "column": None}
        return {"code": "bad_file", "message": "The file cannot be read.", "errors": [problem]}
    return {"code": "engine_error", "message": f"{type(error).__name__}: {text}"}


def _is_limit(error: BaseException) -> bool:
    """Out of address space, of file size or of threads: pyarrow reports the last as a bare ArrowException."""
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno in LIMIT_ERRNOS:
        return True
    return any(sign in str(error) for sign in _NO_THREAD)
