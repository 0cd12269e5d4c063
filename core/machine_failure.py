"""Which errors this machine causes, not the job: a disk that is full or broken, no file descriptor left, …"""

import errno
from typing import Final

ERRNOS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM},
)


def is_machine_failure(error: BaseException | None) -> bool:
    """Whether the operating system refused a resource that another machine, or this one later, may have.

    A computation that runs out of memory raises MemoryError, or torch's RuntimeError: these are failures of the job.
    """
    return isinstance(error, OSError) and error.errno in ERRNOS
