"""The position of a reader in the feed of a job, as one line that the reader sends back to continue."""

import re
from dataclasses import dataclass, replace
from typing import Final, Self
from urllib.parse import quote, unquote

from core.errors import InvalidRequest

LONGEST: Final = 16_384  # characters; a series takes some twenty of them
_TEXT: Final = re.compile(r"(\d{1,18})(?:;([0-9a-f]{8})?;(\d{1,9});((?:[\w.~%-]+:\d{1,15}(?:,(?!$)|$))*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """`event` is the last event's id, `progress` a digest of the last progress.

    `counts` is how many points of each series were seen, and `attempt` the write generation of the last of them (an
    attempt between two of its rollbacks). The present generation only appends rows of metrics, and the next one only
    removes rows from the end. The rows up to `attempt` that still exist therefore begin with what the reader has, or
    are the beginning of it.
    """

    event: int = 0
    progress: str = ""
    attempt: int = 0
    counts: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        if not (self.progress or self.attempt or self.counts):
            return str(self.event)
        counts = ",".join(f"{quote(name, safe='')}:{count}" for name, count in self.counts)
        return f"{self.event};{self.progress};{self.attempt};{counts}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote.

        Raises:
            InvalidRequest: the text is no cursor.
        """
        match = _TEXT.fullmatch(text) if len(text) <= LONGEST else None
        if match is None:
            raise InvalidRequest("This is not the id of an event; omit it to start from the beginning.")
        event, progress, attempt, counts = match.groups()
        pairs = (pair.rpartition(":") for pair in (counts or "").split(",") if pair)
        seen = {unquote(name): int(count) for name, _, count in pairs}
        return cls(int(event), progress or "", int(attempt or 0), tuple(sorted(seen.items())))

    def with_counts(self, attempt: int, counts: dict[str, int]) -> Self:
        """The same place among the events, another one among the points."""
        return replace(self, attempt=attempt, counts=tuple(sorted(pair for pair in counts.items() if pair[1])))


START: Final = Cursor()
