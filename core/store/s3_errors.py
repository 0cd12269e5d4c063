"""Classifies the errors of an S3 server: retry, operator has to act, or no such object."""

import errno
import re
from typing import Final

from core.store.base import StoreMissing, StoreRefused, StoreTransient

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,60})</Code>")

# Transient 4xx: the request or its body was damaged or slow in transit, or conflicted with another one. NoSuchUpload:
# a request whose answer was lost completed the upload, or it was aborted; the next try starts from the beginning.
_PASSING_STATUS: Final = frozenset({"408", "409", "425", "429"})
_PASSING_CODES: Final = frozenset(
    {"RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "NoSuchUpload"}
)
_FULL_CODES: Final = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded"})


def status_of(error: Exception) -> str | None:
    """The HTTP status in an error of the client library; None if there was no answer, or for any other error."""
    found = _STATUS.search(str(error))
    return found[1] if found else None


def translate_error(error: Exception, key: str, *, writing: bool) -> Exception:
    """The error as one of core.store.base, without the server's name and its long answer.

    A writer gets OSError where the Store protocol requires it: the store is full, or does not permit writing.
    """
    text, status = str(error), status_of(error)
    code = found[1] if (found := _CODE.search(text)) else None
    answer = " ".join(part for part in (status, code) if part) or "no answer"
    if status == "507" or code in _FULL_CODES:
        message = f"the object store is full ({answer})"
        return OSError(errno.ENOSPC, message) if writing else StoreTransient(message)
    if code == "NoSuchKey":
        return StoreMissing(f"The object store has no {key}.")
    if status is None or _is_transient(status, code):
        return StoreTransient(f"The object store failed on {key}: {answer}.")
    # A 404 without the code NoSuchKey is no missing object: the bucket is missing, or this is not an S3 server.
    message = f"The object store refused {key}: {answer}."
    return PermissionError(errno.EACCES, message) if writing else StoreRefused(message)


def _is_transient(status: str, code: str | None) -> bool:
    if status.startswith("5"):
        return status != "501"
    return status in _PASSING_STATUS or code in _PASSING_CODES
