"""The second pass over a table: its rows as tensors, by the plan of the first."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.recipe.data.manifest import SPLITS, ColumnFacts
from worker.prepare.report import Report
from worker.prepare.table import cells
from worker.prepare.table.column_statistics import Histogram
from worker.prepare.table.plan import SPLIT_COLUMN, SPLIT_WORDS, ColumnPlan, TablePlan
from worker.prepare.table.rows import Block, TableRowSource
from worker.prepare.writer import DatasetWriter

Array = np.ndarray[Any, Any]


class TableEncoder:
    """Appends blocks to a DatasetWriter, and finishes what the manifest says about the columns."""

    def __init__(self, plan: TablePlan, out: DatasetWriter) -> None:
        self._plan = plan
        self._out = out
        self._split_counts = np.zeros(len(SPLITS), np.int64)
        self._histograms = {
            column.name: Histogram(numbers.minimum, numbers.maximum)
            for column in plan.columns
            if column.kind == "number" and (numbers := column.scan.numbers) is not None
        }
        self._categories = {
            column.name: pa.array(column.categories, pa.string()) for column in plan.columns if column.code is not None
        }
        self._splits = pa.array(list(SPLIT_WORDS)), np.array(list(SPLIT_WORDS.values()), np.uint8)

    def add(self, block: Block) -> None:
        """One block of rows: `numbers`, `missing`, `codes` and `split`, as far as the table has them."""
        plan = self._plan
        numbers = np.zeros((block.rows, plan.numbers), np.float32)
        missing = np.ones((block.rows, plan.numbers), np.bool_)
        codes = np.zeros((block.rows, plan.codes), np.int32)
        for column in plan.columns:
            array = block.columns.get(column.name)
            if array is None or array.null_count == len(array):
                continue
            if column.code is not None:
                codes[:, column.code] = self._encode_category(column, array)
            else:
                self._encode_numbers(column, array, numbers, missing)
        if plan.numbers:
            self._out.append("numbers", numbers)
            self._out.append("missing", np.packbits(missing, axis=1, bitorder="little"))
        if plan.codes:
            self._out.append("codes", codes)
        if plan.split is not None:
            self._add_split(block.columns[SPLIT_COLUMN])

    def describe_columns(self) -> tuple[ColumnFacts, ...]:
        """After the last block."""
        return tuple(self._describe_column(column) for column in self._plan.columns)

    @property
    def split_counts(self) -> tuple[int, int, int] | None:
        train, validation, test = (int(count) for count in self._split_counts)
        return None if self._plan.split is None else (train, validation, test)

    def _encode_category(self, column: ColumnPlan, array: Any) -> Array:
        """(rows,) int32: 0 missing, 1 … k."""
        if column.scan.padded:
            array = pc.utf8_trim_whitespace(array)
        found = pc.index_in(array, value_set=self._categories[column.name])
        codes: Array = pc.add(pc.fill_null(found, -1), 1).to_numpy(zero_copy_only=False)
        return codes

    def _encode_numbers(self, column: ColumnPlan, array: Any, numbers: Array, missing: Array) -> None:
        """Fills the columns of (rows, f) `numbers` and `missing`."""
        typed = _typed_cells(column, array)
        if typed.null_count:
            absent = pc.is_null(typed).to_numpy(zero_copy_only=False)
            typed = pc.fill_null(typed, 0)
        else:
            absent = np.zeros(len(typed), np.bool_)
        values = typed.to_numpy(zero_copy_only=False)
        if column.scan.not_numbers:
            absent = absent | np.isnan(values)
            values = np.where(absent, 0, values)
        if column.kind == "date":
            parts = cells.split_date(values)
            parts[absent] = 0
            first = column.numbers[0]
            numbers[:, first : first + parts.shape[1]] = parts
            missing[:, first : first + parts.shape[1]] = absent[:, None]
            return
        numbers[:, column.numbers[0]] = values
        missing[:, column.numbers[0]] = absent
        if column.name in self._histograms:
            self._histograms[column.name].add(values[~absent] if absent.any() else values)

    def _add_split(self, array: Any) -> None:
        words, parts = self._splits
        found = pc.index_in(pc.utf8_lower(pc.utf8_trim_whitespace(array)), value_set=words)
        split = parts[found.to_numpy(zero_copy_only=False)]
        self._split_counts += np.bincount(split, minlength=len(SPLITS))
        self._out.append("split", split)

    def _describe_column(self, column: ColumnPlan) -> ColumnFacts:
        scan, numbers = column.scan, column.scan.numbers
        fields: dict[str, Any] = {"name": column.name, "kind": column.kind, "missing": scan.missing}
        fields |= {"numbers": column.numbers, "code": column.code}
        if column.code is not None:
            return ColumnFacts(**fields, categories=column.categories, counts=column.counts)
        if column.kind == "boolean" and numbers is None:
            return ColumnFacts(**fields, **_boolean_facts(scan.categories.counts or {}))
        if column.kind in ("number", "boolean") and numbers is not None:
            values = numbers.values
            fields |= {"minimum": numbers.minimum, "maximum": numbers.maximum, "mean": numbers.mean}
            fields |= {"std": numbers.std, "median": numbers.median()}
            if values is not None:
                fields |= {"values": values[0], "counts": values[1]}
            if column.name in self._histograms:
                histogram = self._histograms[column.name]
                fields["histogram"] = histogram.counts()
                fields["median"] = histogram.median() if fields["median"] is None else fields["median"]
        return ColumnFacts(**fields)


def _typed_cells(column: ColumnPlan, array: Any) -> Any:
    """The cells of a number, boolean or date as float64, or as days since 1970, with nulls."""
    text = pa.types.is_string(array.type)
    if column.kind == "date":
        return pc.cast(cells.read_dates(array) if text else array, pa.int32())
    if column.kind == "boolean" and text:
        array = cells.read_booleans(array, more=True)
    elif text:
        array = cells.read_numbers(array)
    return pc.cast(array, pa.float64())


def _boolean_facts(counts: dict[str, int]) -> dict[str, Any]:
    """From the counts of the words."""
    ones = sum(count for word, count in counts.items() if word.lower() in cells.TRUE_WORDS)
    rows = sum(counts.values())
    pairs = [(value, count) for value, count in ((0, rows - ones), (1, ones)) if count]
    mean = ones / rows
    return {
        "values": tuple(value for value, _ in pairs),
        "counts": tuple(count for _, count in pairs),
        "minimum": pairs[0][0],
        "maximum": pairs[-1][0],
        "mean": mean,
        "std": (mean * (1 - mean)) ** 0.5,
        "median": (0.5 if rows == 2 * ones else float(2 * ones > rows)),
    }


def encode_table(source: TableRowSource, plan: TablePlan, out: DatasetWriter, report: Report) -> None:
    """Read the file again, write its rows, and finish the dataset."""
    encoder = TableEncoder(plan, out)
    stored = [column for column in plan.columns if column.kind != "text"]
    only = {column.name for column in stored} | ({SPLIT_COLUMN} if plan.split else set())
    as_text = {column.name for column in stored if column.as_text}
    for block in source.read_blocks(as_text, only):
        encoder.add(block)
        report.progress(block.start + block.rows, plan.rows, 0.5 + source.fraction() / 2)
    out.finish(
        kind="table",
        format=source.format,
        columns=encoder.describe_columns(),
        split_counts=encoder.split_counts,
        preview=tuple(plan.preview),
    )
