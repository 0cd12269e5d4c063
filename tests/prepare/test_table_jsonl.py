"""Tables from JSONL: types, missing keys, and every bad line with its number."""

import json

import pytest

from tests.support.tables import prepare_table, refused

CASES = {
    "object in a row": (b'{"a":1}\n{"a":{"x":1}}\n', "nested", 2, "a", "the value of '/a' is an object"),
    "list in a row": (b'\n{"b/c~":[1]}\n', "nested", 2, "b/c~", "the value of '/b~1c~0' is a list"),
    "key twice": (b'{"a":1}\n{"a":1,"b":2,"a":2}\n', "duplicate_key", 2, None, "the key 'a' is there twice"),
    "cut off": (b'{"a":1}\n\n{"a":2', "truncated", 3, None, "the last line is cut off"),
    "not JSON": (b'{"a":1}\n{"a":2]\n{"a":1}\n', "bad_json", 2, None, "the line is not JSON"),
    "two objects": (b'{"a":1}{"a":2}\n', "bad_json", 1, None, "Extra data at character 8"),
    "a list": (b'{"a":1}\n[1]\n', "not_an_object", 2, None, "the line is no object"),
    "1e400": (b'{"a":1}\n{"a":1e400}\n', "not_finite", 2, "a", "infinite"),
    "Infinity": (b'{"a":1}\n{"a":-Infinity}\n', "not_finite", 2, "a", "infinite"),
    "400 digits": (b'{"a":1' + b"0" * 400 + b"}\n", "not_finite", 1, "a", "infinite"),
    "5,000 digits": (b'{"a":1' + b"0" * 5000 + b"}\n", "bad_json", 1, None, "too many digits"),
    "deep": (b'{"a":' + b"[" * 100_000 + b"\n", "nested", 1, None, "nested too deeply"),
    "NUL": (b'{"a":"x"}\n{"a":"\\u0000"}\n', "nul", 2, "a", "NUL"),
    "empty key": (b'{"":1}\n', "empty_name", None, None, "no name"),
    "long line": (b'{"a":"' + b"x" * (9 << 20) + b'"}', "row_too_long", 1, None, "longer than 4 MiB"),
    "long cell": (b'{"a":1}\n{"a":"' + b"x" * (2 << 20) + b'"}', "cell_too_long", 2, "a", "longer than 1 MiB"),
    "latin-1": (b'{"a":"\xe9"}\n', "encoding", 1, None, "byte 0xe9 is not UTF-8"),
    "no rows": (b"\n  \n", "empty", None, None, "no rows"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_line_is_refused_with_its_number(name: str) -> None:
    content, code, row, column, text = CASES[name]
    first = refused(content, "jsonl")[0]
    assert (first.code, first.row, first.column) == (code, row, column)
    assert text in first.detail


def encode(*rows: dict[str, object]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def test_types_are_those_of_json() -> None:
    """Strings stay strings, whatever is in them; keys that come late or are absent are missing values."""
    made = prepare_table(
        encode(
            {"n": 1, "s": "1", "b": True, "d": "2024-01-01"},
            {"n": 2.5, "s": "2", "late": "x", "d": None},
            {"n": None, "s": "1", "b": False, "d": "2024-01-03T10:00:00Z"},
        ),
        "jsonl",
    )
    assert {column.name: (column.kind, column.missing) for column in made.manifest.columns} == {
        "n": ("number", 1),
        "s": ("category", 0),
        "b": ("boolean", 1),
        "d": ("date", 1),
        "late": ("category", 2),
    }
    assert made.column("s").categories == ("1", "2")
    assert made.manifest.preview[1] == {"n": 2.5, "s": "2", "b": None, "d": None, "late": "x"}


def test_several_types_are_read_as_strings() -> None:
    """The warning names the line; a correction to number reads strings as numbers."""
    content = b'{"a":1}\n\n{"a":"x"}\n{"a":true}\n{"a":2.5}\n'
    made = prepare_table(content, "jsonl")
    assert made.column("a").categories == ("1", "2.5", "true", "x")
    assert made.manifest.warnings == ("column 'a' is read as strings: the type changes in row 3, with 'x'",)
    made = prepare_table(b'{"a":1}\n{"a":"2.5"}\n', "jsonl", columns={"a": {"kind": "number"}})
    assert made.tensors["numbers"].tolist() == [[1], [2.5]]
    assert made.manifest.warnings == ()


def test_nan_is_missing_and_is_reported() -> None:
    made = prepare_table(b'{"a":NaN}\n{"a":1}\n', "jsonl")
    assert made.column("a").missing == 1
    assert made.missing(0) == [True, False]
    assert made.manifest.warnings == ("column 'a': 1 NaN count as missing",)


def test_half_a_surrogate_pair_is_replaced() -> None:
    assert prepare_table(b'{"a":"x\\ud800"}\n{"a":"y"}', "jsonl").column("a").categories == ("x\ufffd", "y")


def test_numbers_beyond_two_to_the_53_are_warned_about() -> None:
    made = prepare_table(b'{"a":9007199254740993}\n{"a":123456789012345678901234567890}\n', "jsonl")
    assert "2^53" in made.manifest.warnings[0]
