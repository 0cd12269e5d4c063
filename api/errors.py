"""The table: the kind of an error -> HTTP status; and the only place where errors become RFC 9457 problem details."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from api.json_documents import MalformedError, render_json
from core.db.session import is_full, is_transient
from core.errors import BasinError, DatabaseFull, FieldProblem, Kind, Unavailable
from core.redact import redact_secrets

STATUS: Mapping[Kind, int] = {
    "invalid": 422,
    "unauthenticated": 401,
    "forbidden": 403,
    "not_found": 404,
    "conflict": 409,
    "precondition": 412,
    "too_large": 413,
    "unsupported": 415,
    "quota": 429,
    "storage": 507,
    "unavailable": 503,
}
RETRY_AFTER_SECONDS = 2  # the reconciler's interval
MOST_ERRORS = 20  # a problem names at most this many fields
LONGEST_TEXT = 500  # characters of one message; messages may quote what was sent

_log = logging.getLogger("basin.api")


class ProblemField(BaseModel):
    """One field that is wrong."""

    pointer: str
    message: str
    hint: str | None = None


class Problem(BaseModel):
    """RFC 9457 problem details. `code` is stable, `detail` is prose. Some codes add members (`current_status`)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemField]
    request_id: str


class HttpError(Exception):
    """An error of HTTP itself, which the domain has no kind for: bad syntax, a range that cannot be satisfied."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        """`status` is the HTTP status, `code` the stable code of the problem."""
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


def problem_response(  # noqa: PLR0913 - the members of RFC 9457
    *,
    request_id: str,
    status: int,
    code: str,
    detail: str,
    errors: tuple[FieldProblem, ...] = (),
    extra: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    body = {
        "type": f"urn:basin:problem:{code}",
        "title": _PHRASES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail[:LONGEST_TEXT],
        "code": code,
        "errors": [
            {"pointer": e.pointer[:LONGEST_TEXT], "message": e.message[:LONGEST_TEXT], "hint": e.hint}
            for e in errors[:MOST_ERRORS]
        ],
        "request_id": request_id,
        **(extra or {}),
    }
    # A message may quote the request; a key that was sent in the wrong place must not be repeated.
    content = redact_secrets(render_json(body).decode()).encode()
    return Response(content, status, headers=headers, media_type="application/problem+json")


def error_response(request_id: str, error: Exception) -> Response:
    """The response to any exception. An unforeseen exception is logged here, and the response does not describe it."""
    if is_full(error):
        _log.warning("the disk of the database is full", extra={"request_id": request_id})
        error = DatabaseFull()
    elif not isinstance(error, BasinError) and is_transient(error):
        _log.warning("database away: %s", type(error).__name__, extra={"request_id": request_id})
        error = Unavailable()
    match error:
        case BasinError():
            return _of_domain(request_id, error)
        case MalformedError():
            return problem_response(request_id=request_id, status=400, code="malformed_json", detail=str(error))
        case HttpError(status=status, code=code, message=message, headers=headers):
            return problem_response(request_id=request_id, status=status, code=code, detail=message, headers=headers)
        case RequestValidationError():
            detail, errors = (
                "The request's parameters cannot be accepted.",
                tuple(map(_parameter_problem, error.errors())),
            )
            return problem_response(
                request_id=request_id, status=422, code="invalid_request", detail=detail, errors=errors
            )
        case HTTPException():
            return _of_framework(request_id, error)
    _log.error("unforeseen error", exc_info=error, extra={"request_id": request_id})
    detail = f"The server failed; its log has the cause. Give the request id {request_id} to its operator."
    return problem_response(request_id=request_id, status=500, code="internal_error", detail=detail)


def _of_domain(request_id: str, error: BasinError) -> Response:
    status = STATUS[error.kind]
    wait = error.extra.get("retry_after_seconds", RETRY_AFTER_SECONDS)
    headers = {"Retry-After": str(wait)} if status in {429, 503} else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return problem_response(
        request_id=request_id,
        status=status,
        code=error.code,
        detail=error.message,
        errors=error.errors,
        extra=error.extra,
        headers=headers,
    )


def _of_framework(request_id: str, error: HTTPException) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    return problem_response(
        request_id=request_id,
        status=error.status_code,
        code=_HTTP_CODES.get(error.status_code, phrase.lower().replace(" ", "_")),
        detail=_HTTP_DETAILS.get(error.status_code, error.detail),
        headers=error.headers,
    )


_PHRASES = {460: "Checksum Mismatch"}  # a status of tus, which HTTP does not have
_HTTP_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
_HTTP_DETAILS = {
    404: "There is nothing at this path; /openapi.json lists all paths.",
    405: "This path does not accept this method; the Allow header lists the methods that it accepts.",
    413: "The request is larger than this service accepts.",
}


def _parameter_problem(error: Mapping[str, object]) -> FieldProblem:
    """FastAPI's ("query", "limit") becomes the pointer /query/limit; pointers into the body are made elsewhere."""
    place = error["loc"] if isinstance(error["loc"], tuple) else ()
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
    return FieldProblem(pointer, str(error["msg"]))


async def on_error(request: Request, error: Exception) -> Response:
    """FastAPI's exception handler: replaces FastAPI's own error documents by problem details."""
    response = error_response(request.scope["basin.request_id"], error)
    if response.status_code == 405:
        response.headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
    return response


def _allowed_methods(request: Request) -> set[str]:
    """The methods that this path accepts. FastAPI names those of one route; GET and POST of a path are two routes."""
    found: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        if route.path is not None and compile_path(route.path)[0].match(request.url.path):
            found |= route.methods or set()
    return found | {"HEAD"} if "GET" in found else found
