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
LARGEST_CHUNK: Final = 64 << 20  # bytes after decompression, above which the ratio counts
LARGEST_RATIO: Final = 1000


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
        self._done = 0
        try:
            self._file = parquet.ParquetFile(
                pa.PythonFile(source.open(), mode="r"),
                thrift_string_size_limit=FOOTER_BYTES,
                thrift_container_size_limit=1_000_000,
            )
            schema = self._file.schema_arrow
        except (pa.ArrowInvalid, OSError, pa.ArrowNotImplementedError) as error:
            report.refuse("bad_parquet", f"the file is no Parquet file, or damaged: {show_cell(str(error))}")
        check_names(tuple(schema.names), report, None)
        self._check_groups(source)
        self.names = tuple(field.name for field in schema if self._accepts(field))
        report.check()

    def read_blocks(self, as_text: Collection[str], only: Collection[str] | None) -> Iterator[Block]:
        """Refused: damaged pages, other numbers of rows than announced."""
        names = [name for name in self.names if only is None or name in only]
        start, announced = 0, self._file.metadata.num_rows
        batch_rows = max(64, min(65_536, BATCH_CELLS // max(1, len(names))))
        try:
            for batch in self._file.iter_batches(batch_size=batch_rows, columns=names, use_threads=False):
                columns = {name: self._convert(batch.column(name), name in as_text) for name in names}
                if batch.num_rows:
                    yield Block(start, batch.num_rows, columns)
                start += batch.num_rows
                self._done = start
        except (pa.ArrowInvalid, OSError, pa.ArrowNotImplementedError, UnicodeDecodeError) as error:
            detail = f"the rows after row {start} cannot be read: {show_cell(str(error))}"
            self._report.refuse("bad_parquet", detail, row=start + 1)
        if start != announced:
            self._report.refuse("bad_parquet", f"the file announces {announced} rows and holds {start}")

    def locate_rows(self, rows: Iterable[int]) -> dict[int, int]:
        """Row, from 0 -> row, from 1."""
        return {row: row + 1 for row in rows}

    def fraction(self) -> float:
        return self._done / max(1, self._file.metadata.num_rows)

    def _check_groups(self, source: InputFile) -> None:
        """What the footer announces has to fit into the file, and to be within the limits."""
        metadata = self._file.metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        if not 0 <= metadata.num_rows <= MOST_ROWS or sum(group.num_rows for group in groups) != metadata.num_rows:
            detail = f"the footer announces {metadata.num_rows} rows, which its row groups do not hold"
            self._report.refuse("bad_parquet", detail)
        for group in groups:
            for index in range(group.num_columns):
                self._check_chunk(group.column(index), source.size)

    def _check_chunk(self, chunk: Any, size: int) -> None:
        packed, whole = chunk.total_compressed_size, chunk.total_uncompressed_size
        if not 0 <= packed <= size or whole < 0:
            self._report.refuse("bad_parquet", f"a column chunk announces {packed} bytes in a file of {size}")
        if whole > LARGEST_CHUNK and whole > LARGEST_RATIO * packed:
            detail = f"{packed} bytes announce {whole} after decompression; at most {LARGEST_RATIO} times are accepted"
            self._report.refuse("too_compressed", detail, column=chunk.path_in_schema)

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
