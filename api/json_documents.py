"""JSON in and out: strict about what comes in, honest about NaN and infinities in what goes out."""

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NoReturn

from fastapi.responses import Response

from core.errors import FieldProblem, InvalidRequest
from core.non_finite import encode_non_finite

MOST_VALUES = 20_000  # of a document, all levels together; a job has a hundred
MOST_KEYS = 1_000  # of its objects together; each unknown one would be compared with all known ones, for a hint
DEEPEST = 64  # levels of nesting; a job has five

_ESCAPED = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")
_STRANGE = re.compile("[\0\ud800-\udfff]")


class MalformedError(Exception):
    """The text is no JSON document that we would read."""


class JsonResponse(Response):
    """A JSON answer; NaN and infinities are written as strings, since JSON has no numbers for them."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return content if isinstance(content, bytes) else render_json(content)


def render_json(value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(encode_non_finite(value), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode(errors="replace")  # a problem may quote what no UTF-8 can hold


def format_timestamp(seconds: float | None) -> str | None:
    """Unix seconds -> RFC 3339 in UTC, to the millisecond."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_json(raw: bytes) -> object:
    """The document in `raw`. Stricter than `json.loads`: UTF-8 only, no NaN, no key twice, bounded depth and width.

    Raises:
        MalformedError: this is no JSON; the message says where.
        InvalidRequest: a text holds NUL or a lone surrogate, which no database and no UTF-8 can keep.
    """
    try:
        document = json.loads(raw.decode(), object_pairs_hook=_unique_pairs, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise MalformedError(f"The body is not UTF-8 (byte {error.start}).") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedError(f"The body is not JSON: {error.msg}, {where}.") from error
    except RecursionError as error:
        raise MalformedError("The body is nested too deeply.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise MalformedError("The body holds a number that is too long.") from error
    _check_bounds(document)
    if _ESCAPED.search(raw) and (strange := _unstorable_texts(document)):
        message = "no NUL and no lone surrogates in texts"
        raise InvalidRequest(errors=tuple(FieldProblem(pointer, message) for pointer in strange))
    return document


def _unstorable_texts(document: object) -> list[str]:
    """JSON pointers of the texts, keys too, that nothing can keep. In raw JSON they can only stand as escapes."""
    found: list[str] = []
    stack = [("", document)]
    while stack:
        pointer, value = stack.pop()
        if isinstance(value, dict):
            stack.extend((f"{pointer}/{_escape_pointer(key)}", inner) for key, inner in value.items())
            found.extend(f"{pointer}/{_escape_pointer(key)}" for key in value if _STRANGE.search(key))
        elif isinstance(value, list):
            stack.extend((f"{pointer}/{i}", inner) for i, inner in enumerate(value))
        elif isinstance(value, str) and _STRANGE.search(value):
            found.append(pointer)
    return found


def _unique_pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise MalformedError(f"The key {twice[:80]!a} stands twice in one object.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not JSON.")


def _check_bounds(document: object) -> None:
    """Width and depth, level by level; a wide document would otherwise cost a second in its error messages alone."""
    level: list[object] = [document]
    values = keys = 0
    for _ in range(DEEPEST + 1):
        values += len(level)
        keys += sum(len(value) for value in level if isinstance(value, dict))
        if values > MOST_VALUES or keys > MOST_KEYS:
            raise MalformedError(f"The body has more than {MOST_VALUES} values or {MOST_KEYS} keys.")
        if not level:
            return
        level = [inner for value in level for inner in _child_values(value)]
    raise MalformedError("The body is nested too deeply.")


def _child_values(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _escape_pointer(key: str) -> str:
    return key.encode("utf-8", "replace").decode().replace("~", "~0").replace("/", "~1")
