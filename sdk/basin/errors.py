"""The errors of the client. The command line imports this module first, so it imports little."""

# ruff: noqa: N818 (the names are conditions: `except Unreachable`)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


class BasinError(Exception):
    """The base class of the client's errors."""


class Unreachable(BasinError):
    """No answer from the service at this address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason


class BadAnswer(BasinError):
    """The answer is not one of Basin: it comes from another server or from a proxy."""


class DigestMismatch(BasinError):
    """The SHA-256 of the received bytes is not the recorded one."""


class BadFile(BasinError):
    """A local file, option or setting that cannot be parsed."""


class BadKey(BasinError):
    """An API key with characters that a header cannot hold. The message does not contain the key."""


class NotThere(BasinError):
    """The requested item does not exist: weights of a job, results of an analysis, a local service or port."""


@dataclass(frozen=True, slots=True)
class Field:
    """One wrong field of a request: `pointer` is a JSON pointer into the body."""

    pointer: str
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        """As in `/optimizer/lr: must be greater than 0 (as in 0.1)`."""
        where = self.pointer or "(the whole body)"
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class Problem(BasinError):
    """The service refused a request (RFC 9457 problem details). Its text holds the code, the detail and the fields."""

    def __init__(self, status: int, code: str, title: str, detail: str, fields: tuple[Field, ...] = ()) -> None:
        said = f"{code}: {detail or title}" if code else detail or title
        super().__init__("\n".join([said, *(f"  {field}" for field in fields)]))
        self.status = status
        self.code = code
        self.title = title
        self.detail = detail
        self.fields = fields

    @classmethod
    def from_body(cls, status: int, body: Mapping[str, Any]) -> Self:
        """Reads the body of a problem answer; parts that are missing or of another type are left out."""
        errors = body.get("errors")
        fields = tuple(
            Field(str(one.get("pointer", "")), str(one.get("message") or one.get("detail") or ""), one.get("hint"))
            for one in (errors if isinstance(errors, list) else [])
            if isinstance(one, dict)
        )
        title = str(body.get("title") or f"HTTP {status}")
        return cls(status, str(body.get("code") or ""), title, str(body.get("detail") or ""), fields)
