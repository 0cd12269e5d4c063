"""Tables as their readers hand them on: blocks of rows, whose columns are arrays of one of four Arrow types."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from worker.prepare.report import Report, escape_text

MOST_COLUMNS: Final = 4096
LONGEST_NAME: Final = 256  # characters
LONGEST_CELL: Final = 1 << 20  # bytes of UTF-8
BLOCK_BYTES: Final = 1 << 22
SHOWN_CHARACTERS: Final = 100
MISSING_WORDS: Final = (
    "", "NA", "N/A", "NaN", "null", "none",
    "na", "n/a", "nan", "NAN", "NULL", "Null", "NONE", "None", "#N/A",
)  # fmt: skip
"""The cells that count as missing, beside those in `options.missing`."""


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows. A column is an Arrow array of strings, float64, booleans or date32, with nulls for missing.

    A column that is absent has only missing values in these rows.
    """

    start: int
    """The first row, from 0."""
    rows: int
    columns: dict[str, Any]
    mixed: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """Column -> (row of the block, cell) at which its cells change their type. Such a column is read again as text."""


class TableRowSource(Protocol):
    """A file that can be read several times from its beginning."""

    format: str
    typed: bool
    """Do strings stay strings? Those of a CSV file may be numbers."""
    names: tuple[str, ...]
    """The columns in the order of the file, as far as they are known before it is read."""

    def read_blocks(self, as_text: Collection[str], only: Collection[str] | None) -> Iterator[Block]:
        """All rows. The columns in `as_text` are strings; columns outside `only` are left out."""
        ...

    def locate_rows(self, rows: Iterable[int]) -> dict[int, int]:
        """Row, from 0 -> line of the file, from 1, as a text editor counts; for Parquet the row, from 1."""
        ...

    def fraction(self) -> float:
        """The share of the file that the current pass has read."""
        ...


def check_names(names: tuple[str, ...], report: Report, line: int | None) -> None:
    """Refuses names that cannot address a column. `line` is where they are."""
    if len(names) > MOST_COLUMNS:
        report.refuse("too_many_columns", f"{len(names)} columns; at most {MOST_COLUMNS} are accepted", row=line)
    seen: set[str] = set()
    for number, name in enumerate(names, 1):
        if not name:
            report.error("empty_name", f"column {number} has no name in the header", row=line)
        elif name in seen:
            report.error("duplicate_name", f"two columns are named {show_cell(name)}", row=line, column=name)
        elif len(name) > LONGEST_NAME or "\0" in name:
            text = f"the name of column {number} has more than {LONGEST_NAME} characters, or a NUL"
            report.error("bad_name", text, row=line)
        seen.add(name)
    report.check()


def show_cell(text: str) -> str:
    """A cell in a message: in quotes, escaped, at most SHOWN_CHARACTERS long."""
    return f"'{escape_text(text, SHOWN_CHARACTERS)}'"
