"""What a prepare process reports about a file. It has read a user's bytes, so every field is checked."""

from collections.abc import Mapping
from typing import Any, Final

from worker.prepare.verdict import Verdict, refusal_document

MOST_PROBLEMS: Final = 100
LONGEST_TEXT: Final = 300
MOST_WALLS: Final = 32
_TEXTS: Final = ("file", "column", "code", "detail")


def read_problems(ended: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The errors of a last frame that refuses a file: {file, row, column, code, detail}, at least one."""
    given = _part(ended, "error").get("errors")
    found = [each for each in given[:MOST_PROBLEMS] if isinstance(each, Mapping)] if isinstance(given, list) else []
    return [_read_problem(each) for each in found] or [refusal_document(Verdict.CRASH)]


def read_walls(ended: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What confined the process, as the dataset's row keeps it; None: it did not say."""
    given = _part(ended, "results").get("walls") or _part(ended, "error").get("walls")
    if not isinstance(given, list):
        return None
    return {"walls": [str(each)[:LONGEST_TEXT] for each in given[:MOST_WALLS]]}


def _part(ended: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    found = (ended or {}).get(name)
    return found if isinstance(found, Mapping) else {}


def _read_problem(given: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: str(given[name])[:LONGEST_TEXT] if given.get(name) is not None else None for name in _TEXTS}
    row = given.get("row")
    known = {"code": texts["code"] or "unreadable", "detail": texts["detail"] or "", "row": None}
    return texts | known | ({"row": row} if isinstance(row, int) else {})
