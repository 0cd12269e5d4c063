"""What a CSV file does not say: its delimiter, and whether its first row is a header."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import pyarrow as pa

from worker.prepare.report import Report
from worker.prepare.table.cells import read_numbers
from worker.prepare.table.rows import LONGEST_CELL, check_names
from worker.prepare.table.text_scan import TextStream

DELIMITERS: Final = (",", ";", "\t", "|")
SAMPLE_BYTES: Final = 64 << 10
SAMPLE_ROWS: Final = 200


def sniff_delimiter(sample: bytes) -> str:
    """The delimiter with which most rows of the sample have the same number of cells, above one; else a comma.

    Of equals the one with more cells wins, then the first of DELIMITERS.
    """
    lines = sample.decode("utf-8", errors="ignore").splitlines(keepends=True)
    if len(sample) == SAMPLE_BYTES:
        lines = lines[:-1] or lines
    best, delimiter = (0.0, 1), ","
    for candidate in DELIMITERS:
        widths = Counter(len(row) for row in _read_rows(lines, candidate) if row)
        width, rows = max(widths.items(), key=lambda pair: (pair[1], pair[0]), default=(1, 0))
        found = (rows / max(1, widths.total()), width)
        if width > 1 and found > best:
            best, delimiter = found, candidate
    return delimiter


def _read_rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The first rows; none further where the sample breaks a rule of this dialect."""
    try:
        for number, row in enumerate(csv.reader(lines, delimiter=delimiter)):
            if number >= SAMPLE_ROWS:
                return
            yield row
    except csv.Error:
        return


def name_columns(first: list[str], line: int, report: Report, *, header: bool | None) -> tuple[tuple[str, ...], bool]:
    """(names, is the first row, which is at `line`, a header?). By default it is, unless all its cells are numbers."""
    cells = [cell.strip() for cell in first]
    if header is None:
        numbers = None if "" in cells else read_numbers(pa.array(cells, pa.string()))
        header = numbers is None
        if not header:
            report.warn("the first row holds only numbers: the columns are named column_1, column_2, …")
    names = tuple(cells) if header else tuple(f"column_{number}" for number in range(1, len(cells) + 1))
    check_names(names, report, line)
    return names, header


class CsvRows:
    """The rows of a CSV text with their lines, by Python's parser: slow, and used only to say where something is."""

    def __init__(self, stream: TextStream, delimiter: str) -> None:
        csv.field_size_limit(2 * LONGEST_CELL)
        text = io.TextIOWrapper(io.BufferedReader(stream, 1 << 20), encoding="utf-8", newline="")
        self._reader = csv.reader(text, delimiter=delimiter)
        self.line = 1
        """The line in which the current row begins."""

    def __iter__(self) -> Iterator[tuple[int, list[str]]]:
        """(line of the row's beginning, cells), without empty lines. Raises csv.Error for a cell that is too long."""
        for row in self._reader:
            if row:
                yield self.line, row
            self.line = self._reader.line_num + 1
