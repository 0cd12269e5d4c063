"""What the prepare process reports to its user: warnings, what is wrong with the file, and how far it is."""

import time
import unicodedata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, NoReturn

from core.recipe.text_fields import HIDDEN

MOST_ERRORS: Final = 100
MOST_WARNINGS: Final = 100
DETAIL_CHARACTERS: Final = 300
PROGRESS_SECONDS: Final = 0.2
READING_SHARE: Final = 0.75
"""Of the whole work; the rest is writing shards and computing digests."""
SendFrame = Callable[[str, dict[str, Any]], None]
"""(type of the frame, its fields)"""


@dataclass(frozen=True, slots=True)
class FileProblem:
    """One thing that is wrong with an uploaded file. Rows count from 1 and leave out a header."""

    code: str
    detail: str
    file: str | None = None
    row: int | None = None
    column: str | None = None

    def as_document(self) -> dict[str, Any]:
        return asdict(self)


class Refused(Exception):  # noqa: N818 - it says what happened
    """The file cannot be prepared, however often it is tried; `errors` say why."""

    def __init__(self, errors: tuple[FileProblem, ...]) -> None:
        super().__init__("; ".join(problem.detail for problem in errors[:3]))
        self.errors = errors


class Report:
    """Collects warnings and errors, and sends progress.

    Parsers call `check` at the end, and where reading further makes no sense. All text is escaped and cut here.
    """

    def __init__(self, send: SendFrame, clock: Callable[[], float] = time.monotonic) -> None:
        self._send = send
        self._clock = clock
        self._sent_at: float | None = None
        self._errors: list[FileProblem] = []
        self._warnings: dict[str, None] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        """In the order in which they came, each once."""
        return tuple(self._warnings)

    @property
    def errors(self) -> tuple[FileProblem, ...]:
        return tuple(self._errors)

    def warn(self, message: str) -> None:
        """Something that the user should know, and that does not prevent training."""
        if len(self._warnings) < MOST_WARNINGS:
            self._warnings[escape_text(message)] = None

    def error(
        self, code: str, detail: str, *, file: str | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        """A reason to refuse the file. Reading may continue, to find more of them.

        Raises:
            Refused: there are as many as are shown.
        """
        names = (None if name is None else escape_text(name) for name in (file, column))
        shown_file, shown_column = names
        self._errors.append(FileProblem(code, escape_text(detail), shown_file, row, shown_column))
        if len(self._errors) >= MOST_ERRORS:
            self.check()

    def refuse(
        self, code: str, detail: str, *, file: str | None = None, row: int | None = None, column: str | None = None
    ) -> NoReturn:
        """The last reason: reading ends here, with all errors so far."""
        self.error(code, detail, file=file, row=row, column=column)
        raise Refused(self.errors)

    def check(self) -> None:
        """Raises Refused if there are errors."""
        if self._errors:
            raise Refused(self.errors)

    def progress(self, done: int, total: int | None, fraction: float | None = None) -> None:
        """`done` of `total` units are read, or a `fraction` of the reading; sent at most five times a second.

        Long work without it counts as a stall.
        """
        share = fraction if fraction is not None else (done / total if total else 0.0)
        self._send_progress(done, total, READING_SHARE * min(max(share, 0.0), 1.0))

    def progress_of_writing(self, rows: int, fraction: float) -> None:
        """All `rows` are read, and a `fraction` of what follows is done: shards and digests."""
        self._send_progress(rows, rows, READING_SHARE + (1 - READING_SHARE) * fraction)

    def _send_progress(self, done: int, total: int | None, fraction: float) -> None:
        now = self._clock()
        if self._sent_at is None or now - self._sent_at >= PROGRESS_SECONDS:
            self._sent_at = now
            self._send("progress", progress_fields(done, total, fraction))


def progress_fields(done: int, total: int | None, fraction: float) -> dict[str, Any]:
    """The fields of a runner's progress frame; steps are the parser's units."""
    return {
        "step": done,
        "steps": total,
        "epoch": 0,
        "epochs": None,
        "fraction": fraction,
        "loss": None,
        "lr": None,
        "metrics": {},
    }


def escape_text(text: str, limit: int = DETAIL_CHARACTERS) -> str:
    r"""Text from a file for a terminal or a page: hidden characters as `\x1b` or `\u202e`, and at most `limit` long."""
    shown = "".join(_escape_hidden(each) if unicodedata.category(each) in HIDDEN else each for each in text[:limit])
    return shown if len(text) <= limit and len(shown) <= limit else f"{shown[: limit - 1]}…"


def _escape_hidden(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
