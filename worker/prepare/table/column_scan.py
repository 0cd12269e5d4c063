"""The first pass over one column: of which kind it is, by all of its rows, and its statistics."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.recipe.data.manifest import ColumnKind
from worker.prepare.table import cells
from worker.prepare.table.column_statistics import CategoryCounts, NumberStatistics, present_values
from worker.prepare.table.rows import LONGEST_CELL, show_cell

LARGEST: Final = float(np.finfo(np.float32).max)
FIRST_DAY: Final = -719_162  # 0001-01-01, in days since 1970
LAST_DAY: Final = 2_932_896  # 9999-12-31
MOST_PROBLEMS: Final = 100
_TEXT_KINDS: Final = ("boolean", "date", "category", "text")


@dataclass(frozen=True, slots=True)
class CellProblem:
    """One cell for which the file is refused. `row` counts from 0."""

    row: int
    code: str
    detail: str


@dataclass(slots=True)
class ColumnScan:
    """What the rows so far say about a column."""

    name: str
    wanted: ColumnKind | None
    """The user's correction."""
    typed: bool
    """Strings are never numbers."""
    columns: int
    """How many columns share the memory."""
    as_text: bool = False
    """The reader hands on strings, and they are not tried as numbers."""
    rows: int = 0
    present: int = 0
    not_numbers: int = 0
    """Cells that were the number NaN, which counts as missing."""
    family: str | None = None
    """number, boolean, date or text: the type of all cells so far; None while all are missing."""
    mixed_at: int | None = None
    """The first row with a cell of another family, so that the column has to be read again as text."""
    mixed_cell: str = ""
    padded: bool = False
    """Have any strings blanks around them?"""
    dates: bool = True
    booleans: bool = True
    problems: list[CellProblem] = field(default_factory=list)
    categories: CategoryCounts = field(default_factory=CategoryCounts)
    numbers: NumberStatistics | None = None

    @property
    def missing(self) -> int:
        return self.rows - self.present

    def note_mixed(self, row: int, cell: str) -> None:
        """Here the cells change their type; nothing that follows counts."""
        if self.mixed_at is None:
            self.mixed_at, self.mixed_cell = row, cell

    def add(self, start: int, rows: int, column: Any | None) -> None:
        """One block; None where all cells are missing."""
        self.rows = start + rows
        if column is None or column.null_count == len(column) or self.mixed_at is not None:
            return
        family = _family_of(column.type)
        if family == "text":
            self._check_cells(start, column)
            self._add_strings(start, column)
        elif self._joins(start, column, family):
            self._add_typed(start, column, family)

    def _joins(self, start: int, column: Any, family: str) -> bool:
        """Does this block continue the family of the rows before? Otherwise the column is read again as text."""
        if self.wanted == "number" and family == "boolean":
            family = "number"
        if self.family in (None, family):
            self.family = family
            return True
        index = int(pc.index(pc.is_valid(column), value=True).as_py())
        self.note_mixed(start + index, str(column[index].as_py()))
        return False

    def _add_typed(self, start: int, column: Any, family: str) -> None:
        if self.wanted == "number" and family == "date":
            self._refuse_cell(start, column, "a date is not a number")
        elif family == "date":
            self.present += len(column) - column.null_count
            days = pc.fill_null(pc.cast(column, pa.int32()), 0).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero((days < FIRST_DAY) | (days > LAST_DAY))[:MOST_PROBLEMS].tolist():
                self._add_problem(start + row, "bad_date", "the year of the date is not between 1 and 9999")
        else:
            self._add_numbers(start, pc.cast(column, pa.float64()))

    def _add_strings(self, start: int, column: Any) -> None:
        if self.wanted == "text":
            self.present += len(column) - column.null_count
            self.family = "text"
        elif self.wanted in ("date", "boolean"):
            self._add_corrected(start, column)
        elif self.wanted == "number":
            numbers = cells.read_numbers(column)
            if numbers is None:
                self._refuse_bad_cell(start, column, cells.read_numbers)
            elif self._joins(start, column, "number"):
                self._add_numbers(start, numbers)
        elif self.as_text or self.typed or self.wanted == "category":
            if self._joins(start, column, "text"):
                self._add_texts(start, column)
        else:
            self._guess_strings(start, column)

    def _guess_strings(self, start: int, column: Any) -> None:
        """Cells of a CSV file: numbers as long as all are, then text."""
        numbers = cells.read_numbers(column) if self.family != "text" else None
        if numbers is not None:
            if numbers.null_count < len(numbers):
                self.family = "number"
            self._add_numbers(start, numbers)
            return
        if self.family != "text":
            index = cells.find_first_bad(column, cells.read_numbers)
            before = cells.read_numbers(column.slice(0, index))
            if self.family == "number" or (before is not None and before.null_count < index):
                self.note_mixed(start + index, column[index].as_py())
                return
            self.family = "text"
        self._add_texts(start, column)

    def _add_numbers(self, start: int, column: Any) -> None:
        """float64 with nulls. NaN counts as missing; infinite numbers and those beyond float32 are refused."""
        values = present_values(column)
        if not len(values):
            return
        low, high = float(values.min()), float(values.max())
        if not (low >= -LARGEST and high <= LARGEST):  # also where one of them is NaN
            every = column.to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(np.abs(every) > LARGEST)[:MOST_PROBLEMS].tolist():
                why = "is infinite or beyond all floats" if np.isinf(every[row]) else "does not fit into a 32-bit float"
                self._add_problem(start + row, "not_finite", f"the value {why}")
            not_numbers = int(np.isnan(values).sum())
            self.not_numbers += not_numbers
            values = values[np.abs(values) <= LARGEST]
        self.numbers = self.numbers or NumberStatistics(self.columns)
        self.numbers.add(values)
        self.present += len(values)

    def _add_texts(self, start: int, column: Any) -> None:
        if self.categories.counts is None and not self.dates:
            blank = pc.sum(pc.utf8_is_space(column), min_count=0).as_py()
            self.present += len(column) - column.null_count - blank
            return
        counted = column.value_counts()
        distinct, counts = counted.field(0), counted.field(1)
        trimmed = cells.trim_cells(distinct)
        valid = pc.is_valid(trimmed)
        if not pc.all(pc.equal(trimmed, distinct), min_count=0).as_py() or trimmed.null_count != distinct.null_count:
            self.padded = True
        self.dates = self.dates and cells.read_dates(trimmed) is not None
        self.booleans = self.booleans and len(trimmed) <= 64 and cells.read_booleans(trimmed) is not None
        self.present += pc.sum(counts.filter(valid), min_count=0).as_py()
        if self.categories.counts is None:
            return
        values = trimmed.drop_null().to_pylist()
        if any("\0" in value for value in values):
            self._refuse_nul(start, column)
            return
        self.categories.add(values, counts.filter(valid).to_pylist())

    def _refuse_nul(self, start: int, column: Any) -> None:
        found = pc.index(pc.match_substring(column, "\0"), value=True).as_py()
        self._add_problem(start + int(found), "nul", "the string holds a NUL character")

    def _add_corrected(self, start: int, column: Any) -> None:
        def read(part: Any) -> Any | None:
            return cells.read_dates(part) if self.wanted == "date" else cells.read_booleans(part, more=True)

        found = read(column)
        if found is None:
            self._refuse_bad_cell(start, column, read)
            return
        self.family = self.wanted
        if self.wanted == "boolean":
            self._add_numbers(start, pc.cast(found, pa.float64()))
        else:
            self.present += len(found) - found.null_count

    def _check_cells(self, start: int, column: Any) -> None:
        """Refuses cells above LONGEST_CELL; looks closer only where the block holds that many bytes."""
        if column.nbytes > LONGEST_CELL:
            lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
            for row in np.flatnonzero(lengths > LONGEST_CELL)[:MOST_PROBLEMS].tolist():
                self._add_problem(start + row, "cell_too_long", "the cell is longer than 1 MiB")

    def _refuse_bad_cell(self, start: int, column: Any, read: Any) -> None:
        if any(problem.code == "bad_correction" for problem in self.problems):
            return
        index = cells.find_first_bad(column, read)
        self._refuse_cell(start, column, f"{show_cell(column[index].as_py())} is no {self.wanted}", index)

    def _refuse_cell(self, start: int, column: Any, detail: str, index: int | None = None) -> None:
        if index is None:
            index = int(pc.index(pc.is_valid(column), value=True).as_py())
        self._add_problem(start + index, "bad_correction", f"the correction to {self.wanted} does not fit: {detail}")

    def _add_problem(self, row: int, code: str, detail: str) -> None:
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(CellProblem(row, code, detail))


def _family_of(arrow_type: Any) -> str:
    if pa.types.is_floating(arrow_type):
        return "number"
    if pa.types.is_boolean(arrow_type):
        return "boolean"
    return "date" if pa.types.is_date(arrow_type) else "text"
