"""The first pass over a table: what every column is, and which of them are stored."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa

from core.recipe.data.manifest import DATE_PARTS, ColumnKind
from core.recipe.prepare import ColumnOptions
from worker.prepare.report import Report, escape_text
from worker.prepare.table.column_scan import ColumnScan
from worker.prepare.table.column_statistics import EXACT_FLOAT32, EXACT_FLOAT64
from worker.prepare.table.rows import MOST_COLUMNS, SHOWN_CHARACTERS, Block, TableRowSource, check_names, show_cell

PREVIEW_ROWS: Final = 20
MOST_PREVIEW_CHARACTERS: Final = 1 << 20
MOST_CATEGORIES_IN_ALL: Final = 500_000
DECIMAL_COMMA: Final = re.compile(r"\s*[+-]?(\d{1,3}(\.\d{3})*|\d+),\d+\s*$")
SPLIT_COLUMN: Final = "split"
SPLIT_WORDS: Final = {"train": 0, "training": 0, "validation": 1, "val": 1, "valid": 1, "test": 2}
UNKNOWN_COLUMNS: Final = 1024
"""How many columns share the memory where the file does not say beforehand: statistics must not depend on it."""


@dataclass(slots=True)
class ColumnPlan:
    """How the second pass stores a column."""

    name: str
    kind: ColumnKind
    as_text: bool
    scan: ColumnScan
    numbers: tuple[int, ...] = ()
    code: int | None = None
    categories: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()


@dataclass(slots=True)
class TablePlan:
    """The columns in the order of the file."""

    rows: int
    columns: list[ColumnPlan] = field(default_factory=list)
    split: ColumnScan | None = None
    """The column that gives each row to train, validation or test."""
    preview: list[dict[str, Any]] = field(default_factory=list)
    numbers: int = 0
    """Columns of the tensor `numbers`."""
    codes: int = 0
    """Columns of the tensor `codes`."""


def plan_table(source: TableRowSource, corrections: Mapping[str, ColumnOptions], report: Report) -> TablePlan:
    """Read the file once, and once more for columns whose cells turn out to be of two types.

    Refused: no rows, problems of cells, corrections that do not fit, nothing to store.
    """
    wanted = {name: options.kind for name, options in corrections.items()}
    scans, rows, preview = _scan_columns(source, wanted, {}, report)
    mixed = {name: scan for name, scan in scans.items() if scan.mixed_at is not None}
    if mixed:
        again, _, texts = _scan_columns(source, wanted, mixed, report)
        preview = [row | text for row, text in zip(preview, texts, strict=True)]
        scans = {name: again.get(name, scan) for name, scan in scans.items()}
    if not rows:
        report.refuse("empty", "the file has no rows" if not scans else "the file has a header and no rows")
    for name in wanted:
        if name not in scans:
            report.error("unknown_column", f"a correction names the column {show_cell(name)}, which the file lacks")
    _report_problems(source, scans, mixed, report)
    plan = TablePlan(rows)
    for scan in scans.values():
        _plan_column(plan, scan, report)
    _check_plan(plan, report)
    names = list(scans)
    kinds: dict[str, ColumnKind] = {column.name: column.kind for column in plan.columns}
    shown = [{name: _preview_value(kinds.get(name), row.get(name), scans[name]) for name in names} for row in preview]
    plan.preview = _fit_preview(shown)
    return plan


def _fit_preview(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first rows, at least one, that take at most MOST_PREVIEW_CHARACTERS: the api reads them with the manifest."""
    left = MOST_PREVIEW_CHARACTERS
    kept: list[dict[str, Any]] = []
    for row in rows:
        left -= sum(len(name) + len(str(value)) for name, value in row.items())
        if left < 0 and kept:
            break
        kept.append(row)
    return kept


def _scan_columns(
    source: TableRowSource, wanted: Mapping[str, ColumnKind], mixed: Mapping[str, ColumnScan], report: Report
) -> tuple[dict[str, ColumnScan], int, list[dict[str, Any]]]:
    """One pass over all columns, or over the mixed ones as text: (scans, rows, the first rows as they are read)."""
    as_text = set(mixed) if mixed else {name for name, kind in wanted.items() if kind != "number"}
    shared = len(source.names) or UNKNOWN_COLUMNS
    scans: dict[str, ColumnScan] = {}
    preview: list[dict[str, Any]] = []
    rows = 0

    def open_scans(names: Iterable[str]) -> None:
        for name in names:
            scans[name] = ColumnScan(name, wanted.get(name), source.typed, shared, as_text=name in as_text)

    open_scans(mixed or source.names)
    for block in source.read_blocks(as_text, set(mixed) if mixed else None):
        if new := [name for name in block.columns if name not in scans]:
            open_scans(new)
            if len(scans) > MOST_COLUMNS:
                break
        _add_block(block, scans)
        preview += _first_rows(block, PREVIEW_ROWS - len(preview))
        rows = block.start + block.rows
        report.progress(rows, None, source.fraction() / 2)
    check_names(tuple(scans), report, None)
    for scan in scans.values():
        if scan.numbers is not None:
            scan.numbers.finish()
    return scans, rows, preview


def _add_block(block: Block, scans: Mapping[str, ColumnScan]) -> None:
    for name, (row, cell) in block.mixed.items():
        scans[name].note_mixed(block.start + row, cell)
    for name, scan in scans.items():
        scan.add(block.start, block.rows, block.columns.get(name))


def _first_rows(block: Block, count: int) -> list[dict[str, Any]]:
    """At most `count` rows of the block, as Python values."""
    return [
        {name: _python_value(column[row]) for name, column in block.columns.items()}
        for row in range(min(block.rows, count))
    ]


def _report_problems(
    source: TableRowSource, scans: Mapping[str, ColumnScan], mixed: Mapping[str, ColumnScan], report: Report
) -> None:
    """Errors by row, then column; and a warning for each column of two types."""
    found = sorted(
        (problem.row, position, problem.code, problem.detail, name)
        for position, (name, scan) in enumerate(scans.items())
        for problem in scan.problems
    )[:100]
    lines = source.locate_rows({row for row, *_ in found} | {scan.mixed_at or 0 for scan in mixed.values()})
    for name, scan in mixed.items():
        if scan.wanted is None:
            cell, line = show_cell(scan.mixed_cell), lines.get(scan.mixed_at or 0)
            report.warn(f"column {show_cell(name)} is read as strings: the type changes in row {line}, with {cell}")
    for row, _, code, detail, name in found:
        report.error(code, detail, row=lines.get(row), column=name)
    report.check()


def _plan_column(plan: TablePlan, scan: ColumnScan, report: Report) -> None:
    """Adds the column to the plan, or says why it is left out."""
    name = show_cell(scan.name)
    if scan.not_numbers:
        report.warn(f"column {name}: {scan.not_numbers} NaN count as missing")
    if not scan.present:
        report.warn(f"column {name} is left out: all of its values are missing")
        return
    if scan.name == SPLIT_COLUMN and scan.wanted is None and _is_split(scan, report):
        plan.split = scan
        return
    column = ColumnPlan(scan.name, decide_kind(scan), scan.as_text, scan)
    if scan.wanted is None and not scan.typed and DECIMAL_COMMA.match(scan.first_text):
        report.warn(f"column {name} is read as strings: decimals need a point, unlike {show_cell(scan.first_text)}")
    if column.kind in ("number", "boolean"):
        column.numbers = (plan.numbers,)
        _warn_of_large_numbers(scan, report)
    elif column.kind == "date":
        column.numbers = tuple(range(plan.numbers, plan.numbers + len(DATE_PARTS)))
    elif column.kind == "category":
        column.code = plan.codes
        column.categories, column.counts = scan.categories.ordered()
        if len(column.categories) == scan.present >= 100:
            report.warn(f"column {name}: every value occurs once; such a column says nothing about other rows")
    plan.columns.append(column)
    plan.numbers += len(column.numbers)
    plan.codes += column.code is not None


def decide_kind(scan: ColumnScan) -> ColumnKind:
    """The kind of a column with values: the user's, or what all of its cells are."""
    if scan.wanted is not None:
        return "text" if scan.wanted == "category" and scan.categories.counts is None else scan.wanted
    if scan.family in ("number", "boolean", "date"):
        return scan.family  # type: ignore[return-value]  # these families are kinds
    if scan.booleans:
        return "boolean"
    if scan.dates:
        return "date"
    return "text" if scan.categories.counts is None else "category"


def _is_split(scan: ColumnScan, report: Report) -> bool:
    counts = scan.categories.counts
    if scan.family != "text" or not counts or not all(value.lower() in SPLIT_WORDS for value in counts):
        return False
    if scan.missing:
        report.warn("column 'split' is an ordinary column: it does not give every row to one of the three parts")
    return not scan.missing


def _warn_of_large_numbers(scan: ColumnScan, report: Report) -> None:
    numbers = scan.numbers
    if numbers is None or not numbers.whole:
        return
    largest = max(abs(numbers.minimum), abs(numbers.maximum))
    if largest > EXACT_FLOAT32:
        limit = "2^53" if largest >= EXACT_FLOAT64 else "2^24"
        report.warn(
            f"column {show_cell(scan.name)} has whole numbers beyond {limit}, which are rounded to 32-bit floats; "
            "if they are codes, correct its kind to category"
        )


def _check_plan(plan: TablePlan, report: Report) -> None:
    if not any(column.kind != "text" for column in plan.columns):
        report.refuse("no_columns", "no column can be stored: all are texts, or have no values")
    names = sum(len(column.categories) for column in plan.columns)
    if names > MOST_CATEGORIES_IN_ALL:
        detail = f"{names} categories in all columns together; at most {MOST_CATEGORIES_IN_ALL} are stored"
        report.refuse("too_many_categories", f"{detail}: correct some to kind text")
    for column in plan.columns:
        if column.scan.wanted == "category" and column.kind == "text":
            detail = "the correction to category does not fit: it has too many distinct values, or very long ones"
            report.error("bad_correction", detail, column=column.name)
    report.check()


def _python_value(cell: Any) -> Any:
    """Dates as strings: they may be beyond Python's."""
    if cell.is_valid and pa.types.is_date(cell.type):
        return str(np.datetime64(cell.value, "D"))
    return cell.as_py()


def _preview_value(kind: ColumnKind | None, value: Any, scan: ColumnScan) -> Any:
    """A JSON value: numbers as numbers, all else as strings of at most SHOWN_CHARACTERS."""
    if value is None or value != value:  # NaN  # noqa: PLR0124 - the test for NaN
        return None
    if kind == "number":
        number = float(value.strip() if isinstance(value, str) else value)  # as the scan has read it
        return int(number) if number.is_integer() and abs(number) < EXACT_FLOAT64 else number
    if kind == "boolean":
        return str(value).strip().lower() in ("true", "yes", "1", "1.0", "t", "y", "on")
    return escape_text(str(value).strip() if scan.padded else str(value), SHOWN_CHARACTERS)
