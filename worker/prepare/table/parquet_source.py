"""Rows of a Parquet file, by row groups."""

from collections.abc import Collection, Iterable, Iterator
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from core.recipe.prepare import PrepareOptions
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.table.cells import nullify_words
from worker.prepare.table.csv_source import words_for_missing
from worker.prepare.table.rows import Block, check_names, show_cell

BATCH_CELLS: Final = 1 << 20
MOST_ROWS: Final = 1 << 31
FOOTER_BYTES: Final = 64 << 20
LARGEST_GROUPS: Final = 64 << 20  # bytes after decompression, above which the ratio counts
LARGEST_RATIO: Final = 1000
_DAMAGED: Final = (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError, OSError)


class ParquetSource:
    """Flat columns of numbers, decimals, booleans, dates, times with a date, strings, and dictionaries of these.

    A time is taken in UTC. Columns of other types are left out with a warning.
    """

    format = "parquet"
    typed = True

    def __init__(self, source: InputFile, options: PrepareOptions, report: Report) -> None:
        """Refused: a damaged file, nested columns, row groups whose sizes cannot be."""
        self._report = report
        self._words = pa.array(words_for_missing(options), pa.string())
        self._done = self._rows = 0
        if not source.size:
            report.refuse("empty", "the file is empty")
        try:
            self._file = parquet.ParquetFile(
                pa.PythonFile(source.open(), mode="r"),
                thrift_string_size_limit=FOOTER_BYTES,
                thrift_container_size_limit=1_000_000,
            )
            schema = self._file.schema_arrow
            check_names(tuple(schema.names), report, None)
            self._check_groups(source)
            self.names = tuple(field.name for field in schema if self._accepts(field))
        except _DAMAGED as error:
            _raise_system_error(error)
            report.refuse("bad_parquet", f"the file is no Parquet file, or damaged: {show_cell(str(error))}")
        report.check()

    def read_blocks(self, as_text: Collection[str], only: Collection[str] | None) -> Iterator[Block]:
        """Refused: damaged pages, other numbers of rows than announced."""
        names = [name for name in self.names if only is None or name in only]
        start, announced = 0, self._rows
        batch_rows = max(64, min(65_536, BATCH_CELLS // max(1, len(names))))
        try:
            for batch in self._file.iter_batches(batch_size=batch_rows, columns=names, use_threads=False):
                columns = {name: self._convert(batch.column(name), name in as_text) for name in names}
                if batch.num_rows:
                    yield Block(start, batch.num_rows, columns)
                start += batch.num_rows
                self._done = start
        except _DAMAGED as error:
            _raise_system_error(error)
            detail = f"the rows after row {start} cannot be read: {show_cell(str(error))}"
            self._report.refuse("bad_parquet", detail, row=start + 1)
        if start != announced:
            self._report.refuse("bad_parquet", f"the file announces {announced} rows and holds {start}")

    def locate_rows(self, rows: Iterable[int]) -> dict[int, int]:
        """Row, from 0 -> row, from 1."""
        return {row: row + 1 for row in rows}

    def fraction(self) -> float:
        return self._done / max(1, self._rows)

    def _check_groups(self, source: InputFile) -> None:
        """What the footer announces has to agree with itself, and to be within the limits.

        The metadata of column chunks stay unread: with a damaged footer pyarrow's `column` aborts the process.
        """
        metadata = self._file.metadata
        self._rows = int(metadata.num_rows)
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        if not 0 <= metadata.num_rows <= MOST_ROWS or sum(group.num_rows for group in groups) != metadata.num_rows:
            detail = f"the footer announces {metadata.num_rows} rows, which its row groups do not hold"
            self._report.refuse("bad_parquet", detail)
        whole = sum(group.total_byte_size for group in groups)
        if min((group.total_byte_size for group in groups), default=0) < 0:
            self._report.refuse("bad_parquet", "a row group announces a negative size")
        if whole > LARGEST_GROUPS and whole > LARGEST_RATIO * source.size:
            detail = f"{source.size} bytes announce {whole} after decompression"
            self._report.refuse("too_compressed", f"{detail}; at most {LARGEST_RATIO} times as many are accepted")

    def _accepts(self, field: Any) -> bool:
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        types = pa.types
        if types.is_nested(kind):
            detail = f"the column has nested values ({show_cell(str(kind))}); columns have to be flat"
            self._report.error("nested", detail, column=field.name)
            return False
        accepted = (types.is_integer, types.is_floating, types.is_decimal, types.is_boolean, types.is_date)
        strings = (types.is_string, types.is_large_string, types.is_string_view, types.is_timestamp, types.is_null)
        if any(check(kind) for check in (*accepted, *strings)):
            if types.is_timestamp(kind) and kind.tz not in (None, "UTC"):
                self._report.warn(f"column {show_cell(field.name)}: days are those in UTC, not in {show_cell(kind.tz)}")
            return True
        self._report.warn(f"column {show_cell(field.name)} is left out: {show_cell(str(kind))} cannot be stored")
        return False

    def _convert(self, column: Any, as_text: bool) -> Any:  # noqa: FBT001 - one of read_blocks' two cases
        """float64, booleans, date32 or strings."""
        types = pa.types
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if types.is_timestamp(kind):
            column = pc.cast(pc.cast(column, pa.timestamp(kind.unit)), pa.date32(), safe=False)
        elif types.is_date(kind):
            column = pc.cast(column, pa.date32())
        elif types.is_large_string(kind) or types.is_string_view(kind):
            column = pc.cast(column, pa.string())
        elif not as_text and (types.is_integer(kind) or types.is_decimal(kind) or types.is_floating(kind)):
            return pc.cast(column, pa.float64(), safe=False)
        if types.is_null(kind) or (as_text and not types.is_string(column.type)):
            return pc.cast(column, pa.string())
        if types.is_string(column.type):
            column.validate(full=True)
            return nullify_words(column, self._words)
        return column


def _raise_system_error(error: Exception) -> None:
    """Raises what the system says about reading; pyarrow's OSError about the content has no number."""
    if isinstance(error, OSError) and error.errno is not None:
        raise error
