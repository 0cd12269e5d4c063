"""What can go wrong between a client and the service. Light: the command line imports it before anything else."""

# ruff: noqa: N818 (the names say what happened: `except Unreachable`)

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


class BasinError(Exception):
    """The service could not do what was asked."""


class Unreachable(BasinError):
    """No answer from the service at this address."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason


class BadAnswer(BasinError):
    """Something answered, but not as Basin does: another server, or a proxy in between."""


class DigestMismatch(BasinError):
    """The bytes that arrived are not those that the service recorded."""


class BadFile(BasinError):
    """A local file or option that cannot be read as a job."""


class BadKey(BasinError):
    """What was given as an API key cannot be sent as one. The message does not repeat it."""


class NotThere(BasinError):
    """The job exists, what was asked of it does not."""


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
    """The service refused, and said why (RFC 9457 problem details). As text it is all of that: code, detail, fields."""

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
