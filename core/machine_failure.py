"""Which errors say that this machine is at fault, not the job: a disk that is full or broken, no descriptor left, …"""

import errno
from typing import Final

ERRNOS: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM},
)


def is_machine_failure(error: BaseException | None) -> bool:
    """Whether the operating system refused something that another machine, or this one later, may well grant.

    Memory that a computation asks for in vain is a MemoryError, or torch's RuntimeError: that is the job's own.
    """
    return isinstance(error, OSError) and error.errno in ERRNOS
