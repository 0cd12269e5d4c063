"""How a file is cut into blocks changes nothing, and no content makes a reader fail in another way than by refusing."""

import csv
import io
import json
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.tables import PreparedTable, prepare_table, refused
from worker.prepare.report import Refused
from worker.prepare.table import column_statistics, csv_source, jsonl_source, parquet_source
from worker.prepare.table.column_statistics import Histogram, NumberStatistics

NUMBERS = st.one_of(
    st.integers(-(10**9), 10**9).map(str),
    st.floats(-1e30, 1e30).map(repr),
    st.sampled_from(["", "NA", "0", "-0.0", "1e5"]),
)
WORDS = st.sampled_from(["red", "green", "", "NA", "5", 'a "b"', "x,y", "two\nlines", "é", " pad ", "true"])
DATES = st.one_of(st.dates().map(str), st.just(""))
COLUMN = st.sampled_from([NUMBERS, WORDS, DATES, st.sampled_from(["true", "False", "yes", ""])])


@st.composite
def tables(draw: st.DrawFn) -> list[list[str]]:
    """Rows of cells, without a header; the first cell of a row is never blank, so that no line is."""
    cells = [st.integers(0, 10**6).map(str), *draw(st.lists(COLUMN, min_size=1, max_size=4))]
    return draw(st.lists(st.tuples(*cells).map(list), min_size=1, max_size=60))


def write_csv(rows: list[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([f"c{number}" for number in range(len(rows[0]))])
    writer.writerows(rows)
    return text.getvalue().encode()


@contextmanager
def blocks_of(size: int) -> Iterator[None]:
    """Every reader hands on small blocks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_source, "BLOCK_BYTES", size)
        patch.setattr(jsonl_source, "BLOCK_ROWS", 1 + size // 64)
        patch.setattr(parquet_source, "BATCH_CELLS", size)
        yield


def outcome(content: bytes, name: str) -> tuple[Any, ...]:
    """All that a user and a runner see of a file."""
    try:
        made: PreparedTable = prepare_table(content, name)
    except Refused as error:
        return error.errors
    tensors = {tensor: array.tobytes() for tensor, array in made.tensors.items()}
    return made.manifest.canonical_json(), tensors


@settings(max_examples=60, deadline=None)
@given(rows=tables(), size=st.integers(200, 2000))
def test_the_size_of_blocks_changes_no_byte_of_a_csv(rows: list[list[str]], size: int) -> None:
    content = write_csv(rows)
    whole = outcome(content, "csv")
    with blocks_of(size):
        assert outcome(content, "csv") == whole


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("NA"))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, min_size=1), min_size=1, max_size=60),
    size=st.integers(1, 1000),
)
def test_the_size_of_blocks_changes_no_byte_of_a_jsonl(rows: list[dict[str, Any]], size: int) -> None:
    content = "\n".join(map(json.dumps, rows)).encode()
    whole = outcome(content, "jsonl")
    with blocks_of(size):
        assert outcome(content, "jsonl") == whole


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), cuts=st.lists(st.integers(1, 60), min_size=1))
def test_statistics_are_those_of_the_whole_column(values: list[float], cuts: list[int]) -> None:
    """Against Python's exact sums, with chunks of 64 values, and the same bits however the values arrive."""
    found = []
    for sizes in (cuts, [len(values)]):
        whole = NumberStatistics(1 << 30)
        rest = np.array(values)
        while len(rest):
            for size in sizes:
                whole.add(rest[:size])
                rest = rest[size:]
        whole.finish()
        found.append((whole.count, whole.mean, whole.std, whole.minimum, whole.maximum, whole.values))
    assert found[0] == found[1]
    count, mean, std, low, high, _ = found[0]
    assert (count, low, high) == (len(values), min(values), max(values))
    assert mean == pytest.approx(statistics.fmean(values), rel=1e-12, abs=1e-9)
    assert std == pytest.approx(statistics.pstdev(values), rel=1e-9, abs=1e-6)


def test_the_median_of_more_values_than_are_kept_is_exact_to_a_fine_bin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_statistics, "KEPT_VALUES", 100)
    values = np.random.default_rng(0).normal(size=5000)
    content = ("a\n" + "\n".join(map(repr, values.tolist()))).encode()
    column = prepare_table(content).column("a")
    assert column.median != np.median(values)
    assert column.median == pytest.approx(np.median(values), abs=np.ptp(values) / 4000)


def test_a_histogram_of_one_value_and_of_tiny_ranges() -> None:
    for values in ([3.0, 3.0], [0.0, 5e-324, 5e-324], [-1e308 / 4, 1e308 / 4]):
        histogram = Histogram(min(values), max(values))
        histogram.add(np.array(values))
        assert sum(histogram.counts()) == len(values)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=400), name=st.sampled_from(["csv", "tsv", "jsonl", "parquet"]))
def test_arbitrary_bytes_are_read_or_refused(content: bytes, name: str) -> None:
    outcome(content, name)


@settings(max_examples=100, deadline=None)
@given(content=st.text("\"',; \t\n\r|a1.-e{}[]:", max_size=200), name=st.sampled_from(["csv", "tsv", "jsonl"]))
def test_arbitrary_text_is_read_or_refused(content: str, name: str) -> None:
    outcome(content.encode(), name)
    with blocks_of(300):
        outcome(content.encode(), name)


def test_refused_is_what_the_fuzz_would_find() -> None:
    """The outcome of a bad file is its errors, not an exception."""
    assert outcome(b"a,a\n", "csv") == refused(b"a,a\n")
