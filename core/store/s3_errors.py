"""What an S3 server's refusal means to us: try again, ask the operator, or there is no such object."""

import errno
import re
from typing import Final

from core.store.base import StoreMissing, StoreRefused, StoreTransient

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")

# 4xx that pass: the request or its body was damaged or slow on its way, or another one was in its way. The upload that
# is gone was completed by a request whose answer was lost, or swept; the next try starts from the beginning.
_PASSING_STATUS: Final = frozenset({"408", "409", "425", "429"})
_PASSING_CODES: Final = frozenset(
    {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "NoSuchUpload"}
)
_FULL_CODES: Final = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded"})


def status_of(error: Exception) -> str | None:
    """The HTTP status in an error of the client library; None: there was no answer, or the error is none of its own."""
    found = _STATUS.search(str(error))
    return found[1] if found else None


def translate_error(error: Exception, key: str, *, writing: bool) -> Exception:
    """The error in the words of core.store.base. The server's name and its long answers stay in the original.

    A writer gets OSError where the protocol wants that: the store is full, or does not let us write.
    """
    text, status = str(error), status_of(error)
    code = found[1] if (found := _CODE.search(text)) else None
    said = " ".join(part for part in (status, code) if part) or "no answer"
    if status == "507" or code in _FULL_CODES:
        message = f"the object store is full ({said})"
        return OSError(errno.ENOSPC, message) if writing else StoreTransient(message)
    if code == "NoSuchKey":
        return StoreMissing(f"The object store has no {key}.")
    if status is None or _is_transient(status, code):
        return StoreTransient(f"The object store failed on {key}: {said}.")
    # A 404 that does not say NoSuchKey is no missing object: another bucket, or no S3 server at all.
    message = f"The object store refused {key}: {said}."
    return PermissionError(errno.EACCES, message) if writing else StoreRefused(message)


def _is_transient(status: str, code: str | None) -> bool:
    if status.startswith("5"):
        return status != "501"
    return status in _PASSING_STATUS or code in _PASSING_CODES
