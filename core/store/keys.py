"""Keys of objects. They are made here, from the service's own ids alone, and never from a user's string."""

import re
import secrets
from typing import Final

from core.store.base import InvalidStoreKey

JOBS: Final = "jobs/"
UPLOADS: Final = "uploads/"
DATASETS: Final = "datasets/"
_KEY: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}")


def checkpoint_prefix(job: str, attempt: int, step: int) -> str:
    """The folder of one checkpoint's files: a new one at every call, so that no key is ever reused."""
    return f"{JOBS}{job}/{attempt}-{step}-{secrets.token_hex(8)}"


def piece_key(dataset: str, offset: int) -> str:
    """The key of one piece of an upload: a new one at every call."""
    return f"{UPLOADS}{dataset}/{offset:016d}-{secrets.token_hex(8)}"


def dataset_key(version: str, file: str) -> str:
    """The key of one file of a prepared dataset. The version is the digest of its manifest: same key, same bytes."""
    return f"{DATASETS}{version}/{file}"


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
