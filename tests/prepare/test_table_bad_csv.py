"""CSV files that are refused, each with its code, the line that an editor shows, the column and a plain message."""

import pytest

from tests.support.tables import refused
from worker.prepare.report import FileProblem

LONG = b"x" * ((1 << 20) + 1)
CASES = {
    "empty": (b"", "empty", None, None, "the file is empty"),
    "blank lines": (b"\n\n", "empty", None, None, "no rows"),
    "header only": (b"a,b\n", "empty", None, None, "a header and no rows"),
    "duplicate header": (b"a,b,a\n1,2,3\n", "duplicate_name", 1, "a", "two columns are named 'a'"),
    "empty name": (b"a,,c\n1,2,3\n", "empty_name", 1, None, "column 2 has no name"),
    "header after blank lines": (b"\n\na,a\n1,2\n", "duplicate_name", 3, "a", "two columns"),
    "too many cells": (b"a,b\n1,2\n\n1,2,3\n", "ragged", 4, None, "the row has 3 cells, the header has 2"),
    "too few cells": (b'a,b\n"x\ny",2\n1\n', "ragged", 4, None, "the row has 1 cell, the header has 2"),
    "latin-1": (b"a,b\n1,2\n1,caf\xe9\n", "encoding", 3, None, "byte 0xe9 is not UTF-8: set the option encoding"),
    "cut within a character": ("a\nx\né".encode()[:-1], "encoding", 3, None, "byte 0xc3 is not UTF-8"),
    "UTF-16": ("a,b\n1,2\n".encode("utf-16"), "encoding", 1, None, "the file is UTF-16"),
    "NUL": (b"a,b\n1,2\n1,\0\n", "nul", 3, None, "NUL"),
    "1e400": (b'a,b\n"1\n",2\n1e400,2\n', "not_finite", 4, "a", "infinite or beyond all floats"),
    "-inf": (b"a,b\n1,2\n2,-inf\n", "not_finite", 3, "b", "infinite"),
    "beyond float32": (b"a,b\n1,2\n1e39,2\n", "not_finite", 3, "a", "does not fit into a 32-bit float"),
    "open quote": (b'a,b\n1,2\n1,"x\n2,y\n', "open_quote", 3, None, "a quote that opens in this row is not closed"),
    "open quote at the end": (b'a,b\n1,2\n1,"', "open_quote", 3, None, "not closed"),
    "open quote of a missing word": (b'a,b\n1,2\n1,"NA', "open_quote", 3, None, "not closed"),
    "open quote in the first cell": (b'a,b\n1,2\n"3,4\n5,6\n', "ragged", 3, None, "a quote in it may not be closed"),
    "long cell": (b"a,b\n1,2\n1," + LONG + b"\n", "cell_too_long", 3, "b", "longer than 1 MiB"),
    "50 MB cell": (b"a,b\n1,2\n1," + b"x" * (50 << 20), "cell_too_long", 3, None, "longer than 1 MiB"),
    "long header": (b"a," + b"x" * (5 << 20) + b"\n1,2\n", "cell_too_long", 1, None, "longer than 1 MiB"),
    "long name": (b"a," + b"x" * 257 + b"\n1,2\n", "bad_name", 1, None, "more than 256 characters"),
    "10,000 columns": (
        b",".join(b"%d" % n for n in range(10_000)) + b"\n",
        "too_many_columns",
        1,
        None,
        "at most 4096",
    ),
    "only missing": (b"a,b\n,\nNA,null\n", "no_columns", None, None, "no column can be stored"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_refused_with_its_place(name: str) -> None:
    content, code, row, column, text = CASES[name]
    first = refused(content)[0]
    assert (first.code, first.row, first.column) == (code, row, column)
    assert text in first.detail
    assert len(first.detail) <= 300


def test_quotes_that_are_closed_or_no_quotes_are_accepted() -> None:
    """What looks like an open quote at the end of a file, and is none."""
    from tests.support.tables import prepare_table

    for end in ('""', '""""', '5"', '"x"', '"x""y"', '"NA"', "x"):
        assert prepare_table(f"a,b\n1,x\n2,{end}".encode()).manifest.examples == 2, end
        assert prepare_table(f"a,b\n1,x\n2,{end}\n".encode()).manifest.examples == 2, end


def test_as_many_errors_as_are_shown() -> None:
    errors = refused(b"a,b\n" + b"1\n" * 500)
    assert [error.row for error in errors] == list(range(2, 102))
    errors = refused(b"a,b\n" + b"inf,-inf\n" * 500)
    assert [(error.row, error.column) for error in errors[:3]] == [(2, "a"), (2, "b"), (3, "a")]
    assert len(errors) == 100


def test_lines_are_right_far_from_the_beginning() -> None:
    """Several blocks, blank lines and cells of two lines before the bad one."""
    rows = b'"a\nb",1\n\n' * 200_000
    found = refused(b"x,y\n" + rows + b"c,1,2\n" + rows)
    assert [(error.row, error.code) for error in found] == [(2 + 3 * 200_000, "ragged")]
    found = refused(b"x,y\n" + rows + b"c,1e999\n" + rows)
    assert [(error.row, error.code) for error in found] == [(2 + 3 * 200_000, "not_finite")]


@pytest.mark.parametrize(
    ("kind", "cells", "row"),
    [
        ("number", ["1", "2.5", "x1", "x2"], 4),
        ("boolean", ["yes", "0", "2", "x"], 4),
        ("date", ["2024-01-01", "NA", "2024-13-01"], 4),
        ("category", [f"c{number}" for number in range(10_001)], None),
    ],
)
def test_a_correction_that_does_not_fit_names_the_first_row(kind: str, cells: list[str], row: int | None) -> None:
    found = refused("\n".join(["a,b", *(f"{cell},1" for cell in cells)]).encode(), columns={"a": {"kind": kind}})
    assert [(error.code, error.row, error.column) for error in found] == [("bad_correction", row, "a")]
    if row is not None:
        assert f"'{cells[row - 2]}' is no {kind}" in found[0].detail


def test_a_correction_of_a_column_that_is_not_there() -> None:
    (found,) = refused(b"a\n1\n", columns={"b": {"kind": "number"}})
    assert (found.code, found.detail) == ("unknown_column", "a correction names the column 'b', which the file lacks")


def test_cells_in_messages_are_cut_and_escaped() -> None:
    cell = "\x1b[31m" + "x" * 5000
    (found,) = refused(f"a\n1\n{cell}\n".encode(), columns={"a": {"kind": "number"}})
    assert "\x1b" not in found.detail
    assert "\\x1b[31mxxx" in found.detail
    assert found.detail.count("x") < 110


def test_every_problem_is_a_file_problem() -> None:
    assert all(isinstance(error, FileProblem) for error in refused(b"a,b\n1\n"))
