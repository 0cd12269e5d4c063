"""The exit status and output of a runner that cannot report its end over its pipe."""

import contextlib
import os
import sys
import traceback
from typing import Final, NoReturn

from core.machine_failure import is_machine_failure

CRASHED: Final = 70
MACHINE_FAILED: Final = 74  # the machine failed, see core.machine_failure


def print_exception(error: BaseException) -> int:
    """Print the traceback, as far as the disk takes it; the exit status that stands for the error."""
    with contextlib.suppress(OSError):
        traceback.print_exception(error)
    return MACHINE_FAILED if is_machine_failure(error) else CRASHED


def exit_now(code: int) -> NoReturn:
    """End this process at once. The exit status does not depend on whether the last lines could be written."""
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)
