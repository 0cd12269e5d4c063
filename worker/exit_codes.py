"""How a process that trains ends when it cannot say so over its pipe: by an exit status, and by what it prints."""

import contextlib
import os
import sys
import traceback
from typing import Final, NoReturn

from core.machine_failure import is_machine_failure

CRASHED: Final = 70
MACHINE_FAILED: Final = 74  # because of its machine, see core.machine_failure


def print_exception(error: BaseException) -> int:
    """Print what went wrong, as far as the disk takes it; the exit status that tells of it."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return MACHINE_FAILED if is_machine_failure(error) else CRASHED


def exit_now(code: int) -> NoReturn:
    """End this process at once. A disk that does not take the last lines changes nothing about the exit status."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
