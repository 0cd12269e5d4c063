"""Rows of a CSV or TSV file, by pyarrow's reader; all cells are strings."""

import csv
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final, NoReturn

import pyarrow as pa
from pyarrow import csv as arrow_csv

from core.recipe.prepare import PrepareOptions
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.csv_dialect import SAMPLE_BYTES, CsvRows, name_columns, sniff_delimiter
from worker.prepare.table.rows import BLOCK_BYTES, LONGEST_CELL, MISSING_WORDS, Block, show_cell
from worker.prepare.table.text_scan import TextStream, scan_text

MOST_RAGGED: Final = 100
_BLANKS: Final = ("{}", " {}", "{} ", " {} ")


class CsvSource:
    """A CSV file whose text has been checked and whose header has been read."""

    typed = False

    def __init__(self, source: InputFile, options: PrepareOptions, report: Report, format: str) -> None:  # noqa: A002 - the manifest's word
        """Refused: a text in another encoding, an empty file, a bad header."""
        self.format = format
        self._source = source
        self._report = report
        self._facts = scan_text(source, options.encoding, report)
        self._words = [blanks.format(word) for word in words_for_missing(options) for blanks in _BLANKS]
        sample = TextStream(source, self._facts.encoding).read(SAMPLE_BYTES)
        self._delimiter = options.delimiter or ("\t" if format == "tsv" else sniff_delimiter(sample))
        if self._delimiter != ("\t" if format == "tsv" else ","):
            report.warn(f"cells are separated by {self._delimiter!r}")
        self._ragged: list[tuple[int, int, bool]] = []
        self._stream: TextStream | None = None
        self.names, self._header = self._read_names(header=options.header)

    def read_blocks(self, as_text: Collection[str], only: Collection[str] | None) -> Iterator[Block]:
        """All cells as strings, null where they are words for missing values.

        Refused: rows with another number of cells than the header, rows above BLOCK_BYTES, an open quote at the end.
        """
        self._ragged = []
        start, skip, last = 0, int(self._header), None
        try:
            for batch in self._open_reader(only):
                last = batch
                cut = batch.slice(skip) if skip else batch
                skip = max(0, skip - batch.num_rows)
                columns = {name: cut.column(index) for index, name in enumerate(cut.schema.names)}
                if cut.num_rows:
                    yield Block(start, cut.num_rows, columns)
                start += cut.num_rows
        except pa.ArrowInvalid as error:
            self._refuse_invalid(error)
        if self._ragged:
            self._refuse_ragged()
        if only is None and last is not None and self._facts.quotes and self._ends_in_quotes(last):
            self._refuse_open_quote()

    def locate_rows(self, rows: Iterable[int]) -> dict[int, int]:
        """Row, from 0 -> line, from 1."""
        return {row - int(self._header): line for row, line in self._locate(r + int(self._header) for r in rows)}

    def fraction(self) -> float:
        return self._stream.fraction() if self._stream else 0.0

    def _locate(self, records: Iterable[int]) -> Iterator[tuple[int, int]]:
        """(record, from 0 and with the header; its line)"""
        wanted = set(records)
        try:
            for record, (line, _) in enumerate(self._parse_slowly() if wanted else ()):
                if record in wanted:
                    yield record, line
                    wanted.discard(record)
                    if not wanted:
                        return
        except csv.Error:  # Python's parser accepts shorter cells than pyarrow: rows after such a cell have no line
            return

    def _parse_slowly(self) -> CsvRows:
        return CsvRows(TextStream(self._source, self._facts.encoding), self._delimiter)

    def _read_names(self, *, header: bool | None) -> tuple[tuple[str, ...], bool]:
        rows = self._parse_slowly()
        try:
            line, first = next(iter(rows), (1, []))
        except csv.Error:
            self._refuse_long_cell(rows.line)
        if not first:
            self._report.refuse("empty", "the file has no rows")
        return name_columns(first, line, self._report, header=header)

    def _open_reader(self, only: Collection[str] | None) -> Any:
        """Pyarrow's reader; the header, if there is one, is its first row."""
        self._stream = TextStream(self._source, self._facts.encoding)
        reading = arrow_csv.ReadOptions(
            use_threads=False,
            block_size=BLOCK_BYTES,
            column_names=list(self.names),
        )
        parsing = arrow_csv.ParseOptions(
            delimiter=self._delimiter,
            newlines_in_values=self._facts.quotes,
            invalid_row_handler=self._note_ragged,
        )
        converting = arrow_csv.ConvertOptions(
            check_utf8=False,
            column_types=dict.fromkeys(self.names, pa.string()),
            include_columns=None if only is None else [name for name in self.names if name in only],
            null_values=self._words,
            strings_can_be_null=True,
        )
        return arrow_csv.open_csv(pa.PythonFile(self._stream, mode="r"), reading, parsing, converting)

    def _note_ragged(self, row: Any) -> str:
        """Called by the parser; the number counts rows from 1, with the header."""
        self._ragged.append((row.number - 1, row.actual_columns, "\n" in row.text.strip()))
        return "skip" if len(self._ragged) < MOST_RAGGED else "error"

    def _refuse_ragged(self) -> None:
        lines = dict(self._locate(record for record, *_ in self._ragged))
        for record, cells, several in self._ragged:
            expected = len(self.names)
            counted = f"{cells} {'cell' if cells == 1 else 'cells'}"
            hint = "; it goes over several lines: a quote in it may not be closed" if several else ""
            detail = f"the row has {counted}, the header has {expected}{hint}"
            self._report.error("ragged", detail, row=lines.get(record))
        self._report.check()

    def _refuse_invalid(self, error: pa.ArrowInvalid) -> None:
        """Says where a row is that pyarrow cannot parse."""
        if self._ragged:
            self._refuse_ragged()
        rows = self._parse_slowly()
        try:
            for line, cells in rows:
                for name, cell in zip(self.names, cells, strict=False):
                    if len(cell) > LONGEST_CELL:
                        self._report.refuse("cell_too_long", "the cell is longer than 1 MiB", row=line, column=name)
                if sum(map(len, cells)) > BLOCK_BYTES // 2:
                    self._report.refuse("row_too_long", "the row is too long; at most 2 MiB are accepted", row=line)
        except csv.Error:
            self._refuse_long_cell(rows.line)
        self._report.refuse("bad_csv", f"the file cannot be parsed: {show_cell(str(error))}")

    def _ends_in_quotes(self, last: Any) -> bool:
        """Is the last cell a quoted one that the end of the file cuts off?

        The parser accepts that. Then the file ends with a delimiter, a quote and the cell, whose quotes are doubled.
        """
        column = last.column(last.num_columns - 1)
        cell = column[len(column) - 1].as_py() if len(column) else None
        before = (self._delimiter.encode(), b"\n", b"\r", b"")
        for word in self._words if cell is None else (cell,):
            end = b'"' + word.replace('"', '""').encode()
            if self._facts.tail.endswith(end):
                cut = self._facts.tail[: -len(end)]
                if cut[-1:] in before:
                    return True
        return False

    def _refuse_open_quote(self) -> None:
        rows = self._parse_slowly()
        line = 1
        for line, _ in rows:  # noqa: B007 - the line of the last row is wanted
            pass
        self._report.refuse("open_quote", "a quote that opens in this row is not closed", row=line)

    def _refuse_long_cell(self, line: int) -> NoReturn:
        detail = "a cell is longer than 1 MiB, or a quote in it is not closed"
        self._report.refuse("cell_too_long", detail, row=line)


def words_for_missing(options: PrepareOptions) -> tuple[str, ...]:
    """The cells that count as missing; the user's words join the usual ones."""
    return tuple(dict.fromkeys((*MISSING_WORDS, *(options.missing or ()))))
