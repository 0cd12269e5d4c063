"""Tables from CSV: every number of the manifest and every cell of the tensors, derived again with plain Python."""

import csv
import math
import statistics
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from core.recipe.data.manifest import DATE_PARTS
from tests.support.tables import prepare_table

PENGUINS = Path(__file__).parents[2] / "examples" / "data" / "penguins.csv"


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def test_penguins_have_the_statistics_that_python_finds() -> None:
    """344 rows with 19 missing cells; categories by falling count, then by name."""
    made = prepare_table(PENGUINS.read_bytes())
    with PENGUINS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert made.manifest.examples == len(rows) == 344
    kinds = {column.name: column.kind for column in made.manifest.columns}
    assert [name for name, kind in kinds.items() if kind == "category"] == ["species", "island", "sex"]
    assert set(kinds.values()) == {"category", "number"}
    for name, kind in kinds.items():
        present = [row[name] for row in rows if row[name] != "NA"]
        column = made.column(name)
        assert column.missing == 344 - len(present)
        if kind == "category":
            counted = sorted({(-present.count(value), value) for value in present})
            assert column.categories == tuple(value for _, value in counted)
            assert column.counts == tuple(-count for count, _ in counted)
            codes = [0 if row[name] == "NA" else column.categories.index(row[name]) + 1 for row in rows]
            assert made.tensors["codes"][:, column.code].tolist() == codes
        else:
            check_number(made, name, [None if row[name] == "NA" else float(row[name]) for row in rows])


def check_number(made: object, name: str, values: list[float | None]) -> None:
    """Statistics, cells and bits of one column of numbers."""
    column = made.column(name)
    present = [value for value in values if value is not None]
    assert (column.minimum, column.maximum) == (min(present), max(present))
    assert column.mean == pytest.approx(statistics.fmean(present), rel=1e-13)
    assert column.std == pytest.approx(statistics.pstdev(present), rel=1e-12)
    assert column.median == statistics.median(present)
    (position,) = column.numbers
    assert made.missing(position) == [value is None for value in values]
    assert made.tensors["numbers"][:, position].tolist() == [float(np.float32(value or 0)) for value in values]
    width = (max(present) - min(present)) / 20
    bins = [0] * 20
    for value in present:
        bins[min(19, math.floor((value - min(present)) / width))] += 1
    assert sum(column.histogram) == len(present)
    assert np.abs(np.cumsum(column.histogram) - np.cumsum(bins)).max() <= 1  # a value on an edge may round either way
    if all(value.is_integer() for value in present):
        assert column.values == tuple(sorted(map(int, set(present))))
        assert column.counts == tuple(present.count(value) for value in column.values)


def test_the_preview_shows_the_first_rows_as_they_were() -> None:
    preview = prepare_table(PENGUINS.read_bytes()).manifest.preview
    assert len(preview) == 20
    assert preview[3] == {
        "species": "Adelie", "island": "Torgersen", "bill_length_mm": None, "bill_depth_mm": None,
        "flipper_length_mm": None, "body_mass_g": None, "sex": None, "year": 2007,
    }  # fmt: skip
    assert preview[0]["bill_length_mm"] == 39.1


def test_the_preview_of_a_wide_table_has_fewer_rows() -> None:
    """1,000 columns of 301 characters, of which 100 and a sign are shown: at most a million characters in all."""
    header = ",".join(f"column{number:03d}" for number in range(1000))
    row = ",".join(["y" * 301] * 1000)
    manifest = prepare_table(lines(f"{header},x", *(f"{row},{number}" for number in range(25)))).manifest
    assert manifest.examples == 25
    assert len(manifest.preview) == (1 << 20) // (1000 * (9 + 101))


def test_the_kind_of_a_column_follows_from_all_of_its_rows() -> None:
    """A string in row 5,001 makes 4,999 numbers before it names of categories; the warning says where."""
    rows = [f"{number % 7},1" for number in range(4999)]
    made = prepare_table(lines("a,b", *rows, "late,1"))
    column = made.column("a")
    assert column.kind == "category"
    assert column.categories == ("0", "1", "2", "3", "4", "5", "6", "late") or column.categories[-1] == "late"
    assert made.manifest.warnings == ("column 'a' is read as strings: the type changes in row 5001, with 'late'",)


def test_booleans_in_every_case_and_only_by_words() -> None:
    made = prepare_table(lines("a,b,c", "True,yes,0", "FALSE,No,1", ",,1", "true,NO,1"))
    assert [column.kind for column in made.manifest.columns] == ["boolean", "boolean", "number"]
    assert made.tensors["numbers"].tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1], [1, 0, 1]]
    assert made.missing(0) == [False, False, True, False]
    column = made.column("a")
    assert (column.values, column.counts, column.mean, column.median) == ((0, 1), (1, 2), 2 / 3, 1.0)
    assert made.manifest.preview[1] == {"a": False, "b": False, "c": 1}


@pytest.mark.parametrize(
    ("cell", "day"),
    [
        ("2024-02-29", date(2024, 2, 29)),
        ("1969-12-31T23:59:59.123456Z", date(1969, 12, 31)),
        ("2023-12-31 23:30:00-05:00", date(2023, 12, 31)),
        ("0001-01-01", date(1, 1, 1)),
        ("9999-12-31T00:00", date(9999, 12, 31)),
        ("2026-11-30T08:15:00+0530", date(2026, 11, 30)),
    ],
)
def test_dates_become_their_parts(cell: str, day: date) -> None:
    """The day is the one that is written, whatever the offset."""
    made = prepare_table(lines("d,x", f"{cell},1", ",2", "2000-01-01,3"))
    column = made.column("d")
    assert (column.kind, column.missing, column.numbers) == ("date", 1, (0, 1, 2, 3))
    year_days = date(day.year, 12, 31).timetuple().tm_yday
    angle = 2 * math.pi * (day.timetuple().tm_yday - 1) / year_days
    expected = dict(zip(DATE_PARTS, (day.year, math.sin(angle), math.cos(angle), day.weekday()), strict=True))
    found = dict(zip(DATE_PARTS, made.tensors["numbers"][0, :4].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-6)
    assert [made.missing(part)[1] for part in range(4)] == [True] * 4
    assert made.tensors["numbers"][1, :4].tolist() == [0, 0, 0, 0]


def test_an_impossible_date_makes_the_column_one_of_categories() -> None:
    assert prepare_table(lines("d", "2023-02-28", "2023-02-29")).column("d").kind == "category"
    assert prepare_table(lines("d", "2023-02-28T24:00", "2023-02-28")).column("d").kind == "category"


def test_corrections_change_the_kind() -> None:
    content = lines("code,flag,note,day", "01,1,5,2024-01-01", "1,0,6,2024-01-02", "01,t,7,2024-01-01")
    kinds = {"code": {"kind": "category"}, "flag": {"kind": "boolean"}, "note": {"kind": "text"}}
    made = prepare_table(content, columns=kinds | {"day": {"kind": "category"}})
    assert [column.kind for column in made.manifest.columns] == ["category", "boolean", "text", "category"]
    assert made.column("code").categories == ("01", "1")
    assert made.tensors["codes"].tolist() == [[1, 1], [2, 2], [1, 1]]
    assert made.tensors["numbers"].tolist() == [[1], [0], [1]]
    assert made.manifest.preview[0] == {"code": "01", "flag": True, "note": "5", "day": "2024-01-01"}


def test_words_for_missing_values() -> None:
    """The usual words count everywhere; those of the options join them."""
    words = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "none", "None", " NA ", "-999", "?"]
    content = lines("a,b", "1,x", *(f"{word},{word}" for word in words), "2,y")
    made = prepare_table(content, missing=["-999", "?"])
    assert [column.kind for column in made.manifest.columns] == ["number", "category"]
    assert [column.missing for column in made.manifest.columns] == [len(words)] * 2
    assert (made.column("a").minimum, made.column("a").maximum) == (1, 2)


def test_a_column_named_split_gives_the_parts() -> None:
    made = prepare_table(lines("a,split", "1,train", "2,TEST", "3,val", "4,Validation", "5,train"))
    assert [column.name for column in made.manifest.columns] == ["a"]
    assert made.tensors["split"].tolist() == [0, 2, 1, 1, 0]
    assert made.manifest.split_counts == (2, 2, 1)
    assert prepare_table(lines("a,split", "1,train", "2,other")).column("split").kind == "category"


def test_blanks_quotes_and_line_endings() -> None:
    made = prepare_table(b'\xef\xbb\xbfa, b ,c\r\n1, 2, "x"\r\n\r\n +3,-4e1 ,"x, ""y""\nz"\r\n')
    assert [(column.name, column.kind) for column in made.manifest.columns][:2] == [("a", "number"), ("b", "number")]
    assert made.tensors["numbers"].tolist() == [[1, 2], [3, -40]]
    assert made.column("c").categories == ('"x"', 'x, "y"\nz')


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_found_and_shown(delimiter: str) -> None:
    """Decimal commas stay within their cells."""
    content = delimiter.join(["x", "a", "b"]) + "\n" + delimiter.join(["1,5", "2", "u"]) + "\n"
    made = prepare_table(content.encode())
    assert [column.kind for column in made.manifest.columns] == ["category", "number", "category"]
    assert made.manifest.warnings == (
        f"cells are separated by {delimiter!r}",
        "column 'x' is read as strings: decimals need a point, unlike '1,5'",
    )
    assert prepare_table(b"a\tb\nx,y\t3\n", "tsv").manifest.warnings == ()


def test_a_file_without_a_header() -> None:
    made = prepare_table(lines("1,2", "3,4"))
    assert [column.name for column in made.manifest.columns] == ["column_1", "column_2"]
    assert made.manifest.examples == 2
    assert "only numbers" in made.manifest.warnings[0]
    assert prepare_table(lines("x,2", "y,4"), header=False).manifest.examples == 2
    assert prepare_table(lines("1,2", "3,4"), header=True).manifest.examples == 1


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_by_option(encoding: str) -> None:
    made = prepare_table("name,x\ncafé,1\nthé,2\n".encode(encoding), encoding=encoding)
    assert made.column("name").categories == ("café", "thé")


def test_large_whole_numbers_are_warned_about() -> None:
    made = prepare_table(lines("a,b,c", "16777217,9007199254740993,16777216", "2,3,4"))
    assert len(made.manifest.warnings) == 2
    assert "2^24" in made.manifest.warnings[0]
    assert "2^53" in made.manifest.warnings[1]


def test_many_distinct_strings_are_a_text() -> None:
    """10,000 distinct values are categories, one more is a text; it is not stored."""
    names = [f"n{number:05d}" for number in range(10_000)]
    assert prepare_table(lines("a", *names)).column("a").kind == "category"
    made = prepare_table(lines("a,x", *(f"{name},1" for name in [*names, "more"])))
    assert made.column("a").kind == "text"
    assert "codes" not in made.tensors


def test_a_column_without_values_is_left_out() -> None:
    made = prepare_table(lines("a,b", "1,", "2,NA"))
    assert [column.name for column in made.manifest.columns] == ["a"]
    assert made.manifest.warnings == ("column 'b' is left out: all of its values are missing",)


def test_missing_values_of_ten_numbers_are_bits_of_two_bytes() -> None:
    cells = [str(number) if number % 3 else "" for number in range(10)]
    made = prepare_table(lines(",".join(f"c{number}" for number in range(10)), ",".join(cells), ",".join("1" * 10)))
    assert made.tensors["missing"].tolist() == [[0b01001001, 0b10], [0, 0]]
