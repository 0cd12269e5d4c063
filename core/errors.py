"""One small tree of errors. An error carries a code and a kind; only the api turns a kind into an HTTP status."""

# ruff: noqa: N818 - the names are the words of the domain (NotFound, Conflict); "Error" on each would say nothing

from dataclasses import dataclass
from typing import ClassVar, Literal

Kind = Literal[
    "invalid",
    "unauthenticated",
    "forbidden",
    "not_found",
    "conflict",
    "precondition",
    "too_large",
    "unsupported",
    "quota",
    "storage",
    "unavailable",
]


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing that is wrong with one field; `pointer` is a JSON pointer into the document that was sent."""

    pointer: str
    message: str
    hint: str | None = None


class BasinError(Exception):
    """The base of the service's own errors."""

    code: ClassVar[str] = "error"
    kind: ClassVar[Kind] = "unavailable"

    def __init__(
        self,
        message: str | None = None,
        *,
        errors: tuple[FieldProblem, ...] = (),
        extra: dict[str, object] | None = None,
    ) -> None:
        """`message` defaults to the class's docstring; `extra` holds members for the client, such as current_status."""
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.errors = errors
        self.extra = dict(extra or {})
        super().__init__(self.message)


class InvalidSpec(BasinError):
    """The request has fields that cannot be accepted."""

    code = "invalid_spec"
    kind = "invalid"


class UnreadableSpec(InvalidSpec, ValueError):
    """This release cannot read the stored spec; `pointer` is the field that it does not support."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(
            f"This release cannot read the stored spec at {pointer or '/'}: {reason}.",
            errors=(FieldProblem(pointer, reason),),
        )
        self.pointer, self.reason = pointer, reason


class InvalidRequest(BasinError):
    """The request's parameters cannot be accepted."""

    code = "invalid_request"
    kind = "invalid"


class IdempotencyMismatch(BasinError):
    """This Idempotency-Key was used before with another body; use a new key for a new job."""

    code = "idempotency_mismatch"
    kind = "invalid"


class NotFound(BasinError):
    """There is no such thing, or it is not yours."""

    code = "not_found"
    kind = "not_found"


class Conflict(BasinError):
    """The job's present status does not allow this."""

    code = "conflict"
    kind = "conflict"


class PreconditionFailed(BasinError):
    """The resource changed since you read it."""

    code = "precondition_failed"
    kind = "precondition"


class TooLarge(BasinError):
    """The request is larger than this service accepts."""

    code = "too_large"
    kind = "too_large"


class Unsupported(BasinError):
    """This media type or format is not supported."""

    code = "unsupported"
    kind = "unsupported"


class Unauthenticated(BasinError):
    """A valid API key is needed."""

    code = "unauthenticated"
    kind = "unauthenticated"


class Forbidden(BasinError):
    """This request is not allowed here."""

    code = "forbidden"
    kind = "forbidden"


class QuotaExceeded(BasinError):
    """A quota is used up; try again later."""

    code = "quota_exceeded"
    kind = "quota"


class StorageFull(BasinError):
    """As much is stored as this key allows."""

    code = "storage_full"
    kind = "storage"


class DatabaseFull(BasinError):
    """The disk of the database is full, and nothing was stored. Reads work; writes work again once there is space."""

    code = "database_full"
    kind = "storage"


class Unavailable(BasinError):
    """The service cannot answer at the moment; try again shortly."""

    code = "unavailable"
    kind = "unavailable"


class Misconfigured(BasinError):
    """The service's settings do not allow it to start."""

    code = "misconfigured"
    kind = "unavailable"
