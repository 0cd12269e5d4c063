"""Keys of objects. They are made here, from ids of ours alone, and never from a user's string."""

import re
import secrets
from typing import Final

from core.store.base import InvalidStoreKey

JOBS: Final = "jobs/"
_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")


def checkpoint_prefix(job: str, attempt: int, step: int) -> str:
    """The folder of one checkpoint's files: fresh at every call, so that no key is ever used twice."""
    return f"{JOBS}{job}/{attempt}-{step}-{secrets.token_hex(8)}"


def folder_of(key: str) -> str:
    """The key up to its last slash."""
    return key.rpartition("/")[0]


def check_key(key: str) -> str:
    """The key, if it is one: parts of plain letters, digits, dots and dashes; none begins with a dot.

    Raises:
        BadKey: it is none.
    """
    if _KEY.fullmatch(key) is None:
        raise InvalidStoreKey(f"{key[:80]!r} is not a key")
    return key
