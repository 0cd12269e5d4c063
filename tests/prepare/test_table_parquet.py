"""Tables from Parquet: every flat type, row groups, and files that are damaged or lie."""

import datetime as dt
import decimal
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.tables import prepare_table, refused

NEW_YEAR = dt.datetime(2024, 1, 1, 23, 30, tzinfo=dt.UTC)
LEAP_DAY = dt.datetime(2024, 2, 29, tzinfo=dt.UTC)
TYPES = {
    "int": pa.array([1, 2, None], pa.int64()),
    "big": pa.array([2**60, 1, 2], pa.uint64()),
    "float": pa.array([1.5, float("nan"), None]),
    "half": pa.array(np.array([1, 2, 3], np.float16)),
    "decimal": pa.array([decimal.Decimal("1.25"), None, decimal.Decimal(3)]),
    "zoned": pa.array([NEW_YEAR, None, LEAP_DAY], pa.timestamp("us", "Asia/Tokyo")),
    "day": pa.array([dt.date(2024, 1, 1), None, dt.date(1900, 12, 31)]),
    "dictionary": pa.array(["x", "y", "x"]).dictionary_encode(),
    "bool": pa.array([True, None, False]),
    "string": pa.array(["1", "NA", "2"], pa.large_string()),
    "binary": pa.array([b"1", b"2", None]),
    "null": pa.array([None] * 3, pa.null()),
}


def encode(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    made = io.BytesIO()
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), made, **options)
    return made.getvalue()


def test_every_flat_type() -> None:
    made = prepare_table(encode(TYPES), "parquet")
    assert {column.name: (column.kind, column.missing) for column in made.manifest.columns} == {
        "int": ("number", 1), "big": ("number", 0), "float": ("number", 2), "half": ("number", 0),
        "decimal": ("number", 1), "zoned": ("date", 1), "day": ("date", 1), "dictionary": ("category", 0),
        "bool": ("boolean", 1), "string": ("category", 1),
    }  # fmt: skip
    assert made.tensors["numbers"][:, made.column("decimal").numbers[0]].tolist() == [1.25, 0, 3]
    assert made.tensors["numbers"][:, made.column("day").numbers[0]].tolist() == [2024, 0, 1900]
    assert made.tensors["codes"].tolist() == [[1, 1], [2, 0], [1, 2]]
    warnings = "\n".join(made.manifest.warnings)
    for text in ("days are those in UTC, not in 'Asia/Tokyo'", "'binary' is left out", "beyond 2^53", "1 NaN count"):
        assert text in warnings
    assert made.manifest.preview[0]["day"] == "2024-01-01"


def test_row_groups_and_codecs_give_the_same_tensors() -> None:
    generator = np.random.default_rng(0)
    columns = {"x": generator.normal(size=5000), "c": [f"k{number % 17}" for number in range(5000)]}
    whole = prepare_table(encode(columns), "parquet")
    for options in ({"row_group_size": 300}, {"compression": "zstd"}, {"use_dictionary": False, "compression": "none"}):
        again = prepare_table(encode(columns, **options), "parquet")
        assert again.manifest.columns == whole.manifest.columns
        assert all(np.array_equal(again.tensors[name], array) for name, array in whole.tensors.items())
    assert whole.column("x").mean == pytest.approx(columns["x"].mean(), rel=1e-12)
    assert whole.column("x").median == np.median(columns["x"])
    assert np.array_equal(whole.tensors["numbers"][:, 0], columns["x"].astype(np.float32))


def test_corrections_of_typed_columns() -> None:
    kinds = {"int": "category", "bool": "number", "zoned": "category", "string": "number", "half": "boolean"}
    content = encode({name: TYPES[name] for name in [*kinds, "day"]})
    (found,) = refused(content, "parquet", columns={name: {"kind": kind} for name, kind in kinds.items()})
    assert (found.row, found.column) == (2, "half")
    del kinds["half"]
    made = prepare_table(content, "parquet", columns={name: {"kind": kind} for name, kind in kinds.items()})
    assert made.column("int").categories == ("1", "2")
    assert made.column("zoned").categories == ("2024-01-01", "2024-02-29")
    assert (made.column("bool").mean, made.column("string").mean) == (0.5, 1.5)
    (found,) = refused(content, "parquet", columns={"day": {"kind": "number"}})
    assert "a date is not a number" in found.detail


def test_names_with_dots_are_flat() -> None:
    assert [c.name for c in prepare_table(encode({"a.b": [1, 2], "a": ["x", "y"]}), "parquet").manifest.columns] == [
        "a.b",
        "a",
    ]


GOOD = encode(TYPES)
TWINS = pa.Table.from_arrays([pa.array([1])] * 2, ["a", "a"])
CASES = {
    "nested": (encode({"a": [[1], [2]], "x": [1, 2]}), "nested", None, "a", "the column has nested values"),
    "struct": (encode({"a": [{"x": 1}]}), "nested", None, "a", "columns have to be flat"),
    "names": (encode(TWINS), "duplicate_name", None, "a", "two columns"),
    "infinite": (encode({"a": [1, float("inf")]}), "not_finite", 2, "a", "infinite"),
    "no rows": (encode({"a": pa.array([], pa.int64())}), "empty", None, None, "no rows"),
    "cut": (GOOD[:-20], "bad_parquet", None, None, "no Parquet file, or damaged"),
    "empty": (b"", "empty", None, None, "the file is empty"),
    "footer length": (b"PAR1" + b"x" * 100 + b"PAR1", "bad_parquet", None, None, "no Parquet file, or damaged"),
    "not UTF-8": (encode({"a": pa.array([b"\xff", b"x"]).view(pa.string())}), "bad_parquet", 1, None, "UTF8"),
    "NUL": (encode({"a": ["y", "x\0"]}), "nul", 2, "a", "NUL"),
    "bomb": (
        encode({"a": ["x" * 1_000_000] * 200}, use_dictionary=False, compression="zstd"),
        "too_compressed", None, None, "after decompression",
    ),
    "year": (encode({"a": pa.array([0, 5_000_000], pa.date32())}), "bad_date", 2, "a", "not between 1 and 9999"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_bad_file_is_refused(name: str) -> None:
    content, code, row, column, text = CASES[name]
    first = refused(content, "parquet")[0]
    assert (first.code, first.row, first.column) == (code, row, column)
    assert text in first.detail
    assert len(first.detail) <= 300


def test_a_footer_that_announces_other_rows() -> None:
    """The number of rows is a zigzag integer: 77 becomes 78 in the file's own field, in its group, and in both."""
    good = encode({"a": list(range(77))}, write_statistics=False, compression="none")
    start = good.rindex(b"\xf4\xff") if b"\xf4\xff" in good else len(good) - int.from_bytes(good[-8:-4], "little") - 8
    found = []
    for index in range(start, len(good) - 8):
        if good[index : index + 2] == b"\x9a\x01":  # zigzag of 77
            changed = good[:index] + b"\x9c\x01" + good[index + 2 :]
            try:
                found.append(prepare_table(changed, "parquet").manifest.examples)
            except Exception as error:  # noqa: BLE001 - the class is what is looked at
                found.append(type(error).__name__)
    assert len(found) >= 3
    assert set(found) <= {"Refused", 77}
    assert "Refused" in found
