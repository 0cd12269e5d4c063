"""Keys of objects. They are made here, from the service's own ids alone, and never from a user's string."""

import re
import secrets
from typing import Final

from core.store.base import InvalidStoreKey

JOBS: Final = "jobs/"
_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")


def checkpoint_prefix(job: str, attempt: int, step: int) -> str:
    """The folder of one checkpoint's files: a new one at every call, so that no key is ever reused."""
    return f"{JOBS}{job}/{attempt}-{step}-{secrets.token_hex(8)}"


def folder_of(key: str) -> str:
    """The key up to its last slash."""
    return key.rpartition("/")[0]


def check_key(key: str) -> str:
    """The key, if it is valid: parts of ASCII letters, digits, dots, dashes and underscores, none of which begins with
    a dot.

    Raises:
        InvalidStoreKey: it is not valid.
    """
    if _KEY.fullmatch(key) is None:
        raise InvalidStoreKey(f"{key[:80]!r} is not a key")
    return key
