"""Metrics: every point once, in order, and a chart of any size in a few hundred points."""

import itertools
import math
import random
import struct
from array import array

import pytest

from core.db.session import Database
from core.jobs.metrics.chunks import (
    Chunk,
    MetricPoints,
    pack_numbers,
    read_series,
    record_points,
    series_names,
    unpack_numbers,
)
from core.jobs.metrics.downsampling import downsample_values
from tests.support.jobs import chunk, running


def test_columns_are_little_endian_64_bit() -> None:
    assert pack_numbers([1, -2], "q") == struct.pack("<qq", 1, -2)
    assert pack_numbers([0.5, math.inf], "d") == struct.pack("<dd", 0.5, math.inf)
    assert list(unpack_numbers(struct.pack("<qq", 7, 8), "q")) == [7, 8]


def test_points_come_back_in_order_across_chunks_and_segments(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [chunk("lr", 1000, 500, number=1), chunk("lr", 0, 1000), chunk("val.loss", 3, 1)])
    record_points(db, fence, [chunk("lr", 1500, 2, after_step=1500)])
    found = read_series(db, fence.job_id)
    assert found["lr"].steps == list(range(1502))
    assert found["lr"].values == [step / 2 for step in range(1502)]
    assert found["lr"].times == [1000.0 + step for step in range(1502)]
    assert series_names(db, fence.job_id) == ["lr", "val.loss"]


def test_ten_replays_store_each_point_once(db: Database) -> None:
    fence = running(db)
    for _ in range(10):
        record_points(db, fence, [chunk("lr", 0, 7), chunk("train.loss", 0, 7)])
    record_points(db, fence, [chunk("lr", 0, 9)])
    found = read_series(db, fence.job_id)
    assert found["lr"].steps == list(range(9))
    assert found["train.loss"].steps == list(range(7))


def test_numbers_that_are_none_survive(db: Database) -> None:
    fence = running(db)
    values = [math.nan, math.inf, -math.inf, 5e-324, -0.0]
    record_points(db, fence, [Chunk("x", 0, 0, MetricPoints("x", [0, 1, 2, 3, 2**62], values, [0.0] * 5))])
    found = read_series(db, fence.job_id)["x"]
    assert struct.pack("<5d", *found.values) == struct.pack("<5d", *values)
    assert found.steps[-1] == 2**62


def test_a_window_includes_both_ends(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [chunk("lr", 0, 10), chunk("lr", 10, 10, number=1), chunk("x", 100, 1)])
    assert read_series(db, fence.job_id, ["lr"], from_=8, to=11)["lr"].steps == [8, 9, 10, 11]
    assert read_series(db, fence.job_id, ["lr"], from_=18)["lr"].steps == [18, 19]
    assert read_series(db, fence.job_id, ["lr"], to=0)["lr"].steps == [0]
    assert read_series(db, fence.job_id, ["nothing"]) == {}


def test_a_thinned_series_keeps_its_spike(db: Database) -> None:
    fence = running(db)
    values = [1.0] * 1000
    values[617] = 99.0
    values[618] = -99.0
    points = MetricPoints("loss", list(range(1000)), values, [float(step) for step in range(1000)])
    record_points(db, fence, [Chunk("loss", 0, 0, points)])
    found = read_series(db, fence.job_id, max_points=50)["loss"]
    assert len(found.steps) <= 50
    assert (found.steps[0], found.steps[-1]) == (0, 999)
    kept = dict(zip(found.steps, found.values, strict=True))
    assert (kept[617], kept[618]) == (99.0, -99.0)
    assert all(time == step for time, step in zip(found.times, found.steps, strict=True))


@pytest.mark.parametrize(
    ("database_url", "from_", "to"),
    [
        *(("sqlite", *window) for window in [(None, None), (1500, None), (None, 6999), (777, 7777), (3100, 3250)]),
        ("postgresql", 777, 7777),
    ],
    indirect=["database_url"],
)
def test_a_long_series_is_thinned_as_if_it_were_read_whole(db: Database, from_: int | None, to: int | None) -> None:
    """Over the borders of chunks and segments, and of the few chunks that are read at a time; with a NaN in it."""
    fence = running(db)
    chance = random.Random(8)
    values = [chance.gauss(0.0, 1.0) for _ in range(8000)]
    values[3210] = math.nan
    for after, number in itertools.product((0, 4000), range(40)):
        steps = list(range(after + 100 * number, after + 100 * number + 100))
        points = MetricPoints("loss", steps, [values[step] for step in steps], [step / 8 for step in steps])
        record_points(db, fence, [Chunk("loss", after, number, points)])
    begin, end = from_ or 0, 8000 if to is None else to + 1
    inside = array("d", values[begin:end])
    for most in (3, 20, 500, 100_000):
        found = read_series(db, fence.job_id, ["loss"], from_=from_, to=to, max_points=most)["loss"]
        assert found.steps == [begin + place for place in downsample_values(inside, most)]
        assert found.times == [step / 8 for step in found.steps]
        told = [(step, value) for step, value in zip(found.steps, found.values, strict=True) if step != 3210]
        assert told == [(step, values[step]) for step, _ in told]


def test_a_window_between_two_points_is_empty(db: Database) -> None:
    fence = running(db)
    points = MetricPoints("x", [0, 10], [0.0, 1.0], [0.0, 1.0])
    record_points(db, fence, [Chunk("x", 0, 0, points)])
    assert read_series(db, fence.job_id, from_=3, to=7) == {"x": MetricPoints("x", [], [], [])}
    assert read_series(db, fence.job_id, from_=11) == {}


@pytest.mark.parametrize("columns", [([0], [0.0, 1.0], [0.0]), (list(range(1001)), [0.0] * 1001, [0.0] * 1001)])
def test_an_uneven_or_too_long_chunk_is_a_bug_of_the_caller(
    db: Database,
    columns: tuple[list[int], list[float], list[float]],
) -> None:
    fence = running(db)
    with pytest.raises(ValueError, match="three equal columns"):
        record_points(db, fence, [Chunk("x", 0, 0, MetricPoints("x", *columns))])


def test_an_empty_chunk_is_nothing(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [Chunk("x", 0, 0, MetricPoints("x", [], [], []))])
    assert series_names(db, fence.job_id) == []
