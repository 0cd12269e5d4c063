"""Metrics: column chunks in, series out.

A chunk holds at most 1,000 points of one series and belongs to the segment after the checkpoint at `after_step` (0
before there is any). Taking a job back to its checkpoint at step s is one DELETE of the segments with after_step >= s.
"""

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select, tuple_

from core.db.session import Database
from core.db.tables import metric_chunk, metric_chunk_aside
from core.db.upsert import insert_or_replace
from core.jobs.attempt.fence import Fence, fenced_transaction
from core.jobs.attempt.state import bump_version
from core.jobs.events.record import add_event
from core.jobs.metrics.downsampling import downsample_pieces

CHUNK_POINTS: Final = 1000
MOST_ROLLBACKS: Final = 1024  # of one attempt; a job asks for a hundred at most
_AT_ONCE: Final = 64  # chunks in memory


@dataclass(frozen=True, slots=True)
class MetricPoints:
    """Points of one series in order: optimizer steps, values, unix times in seconds; equally many of each."""

    series: str
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The `number`-th chunk (from 0) of a series in its segment; only the last chunk is written again as it grows.

    `rollbacks` is how often its attempt had gone back before it.
    """

    series: str
    after_step: int
    number: int
    points: MetricPoints
    rollbacks: int = 0


def pack_numbers(values: Iterable[float], code: str) -> bytes:
    """Little-endian bytes of int64 ("q") or float64 ("d") values."""
    column: array[Any] = array(code, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def unpack_numbers(data: bytes, code: str) -> "array[Any]":
    """The values that `pack_numbers` has packed."""
    column: array[Any] = array(code)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def put_chunks(connection: Connection, job_id: str, attempt: int, chunks: Iterable[Chunk]) -> None:
    """Write chunks in the caller's fenced transaction; writing one again replaces it, so a retry does no harm."""
    rows = [_chunk_row(job_id, attempt, chunk) for chunk in chunks if len(chunk.points.steps)]
    insert_or_replace(connection, metric_chunk, rows)


def record_points(db: Database, fence: Fence, chunks: Iterable[Chunk]) -> None:
    """Write chunks under the fence.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced_transaction(db, fence, exclusive=True) as connection:
        put_chunks(connection, fence.job_id, fence.attempt, chunks)
        bump_version(connection, fence.job_id)


def write_generation(attempt: int, rollbacks: int) -> int:
    """A number that grows whenever points are removed: readers compare it to find which of their points still hold."""
    return attempt * MOST_ROLLBACKS + rollbacks


def roll_back(db: Database, fence: Fence, step: int, message: str) -> None:
    """Remove the points after `step`, from where the run continues, and record a warning with the reason.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced_transaction(db, fence, exclusive=True) as connection:
        drop_points_after(connection, fence.job_id, step)
        data = {"code": "rolled_back", "message": message, "step": step}
        add_event(connection, fence.job_id, fence.attempt, "warning", data)
        bump_version(connection, fence.job_id)


def drop_points_after(connection: Connection, job_id: str, step: int) -> None:
    """Delete the points after the checkpoint at `step` (0: all points): the next attempt writes them again."""
    connection.execute(
        delete(metric_chunk).where(metric_chunk.c.job_id == job_id, metric_chunk.c.after_step >= step),
    )


def set_aside_points(connection: Connection, job_id: str, step: int) -> None:
    """Move the same points aside: they return if a checkpoint whose files are missing is present again."""
    names = [column.name for column in metric_chunk.columns]
    row, aside = metric_chunk.c, metric_chunk_aside.c
    copied = select(*(row[name] for name in names)).where(row.job_id == job_id, row.after_step >= step)
    last = select(func.max(row.after_step)).where(row.job_id == job_id).scalar_subquery()
    stale = delete(metric_chunk_aside).where(aside.job_id == job_id, aside.after_step.between(step, last))
    connection.execute(stale)
    connection.execute(insert(metric_chunk_aside).from_select(names, copied))
    drop_points_after(connection, job_id, step)


def delete_aside_points(connection: Connection, job_id: str) -> None:
    """Delete the points that were set aside: the job has a new resumable checkpoint, and they no longer fit."""
    connection.execute(delete(metric_chunk_aside).where(metric_chunk_aside.c.job_id == job_id))


def series_names(db: Database, job_id: str) -> list[str]:
    """The names of the job's series, sorted."""
    query = select(metric_chunk.c.series).where(metric_chunk.c.job_id == job_id).distinct()
    with db.read() as connection:
        return sorted(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class MetricColumns:
    """All points of one series, eight bytes a number."""

    steps: "array[int]"
    values: "array[float]"
    times: "array[float]"


def read_columns(
    db: Database, job_id: str, names: Sequence[str] | None = None, *, from_: int | None = None, to: int | None = None
) -> dict[str, MetricColumns]:
    """Every point of the named series (all when None) in the chunks that reach into `from_` … `to`."""
    row = metric_chunk.c
    query = (
        select(row.series, row.steps, row["values"], row.times)
        .where(row.job_id == job_id)
        .order_by(row.series, row.after_step, row.number)
    )
    if names is not None:
        query = query.where(row.series.in_(names))
    if from_ is not None:
        query = query.where(row.last_step >= from_)
    if to is not None:
        query = query.where(row.first_step <= to)
    with db.read() as connection:
        found = connection.execute(query).all()
    whole: dict[str, MetricColumns] = {}
    for name, steps, values, times in found:
        one = whole.setdefault(name, MetricColumns(array("q"), array("d"), array("d")))
        one.steps.extend(unpack_numbers(steps, "q"))
        one.values.extend(unpack_numbers(values, "d"))
        one.times.extend(unpack_numbers(times, "d"))
    return whole


def read_series(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    job_id: str,
    names: Sequence[str] | None = None,
    *,
    from_: int | None = None,
    to: int | None = None,
    max_points: int | None = None,
) -> dict[str, MetricPoints]:
    """The named series (all when None) from step `from_` to step `to`, both included.

    A series of more than `max_points` points is downsampled while it is read, so that a long one needs no more memory
    than a short one; its extremes and any NaN are kept. Unknown names are left out.
    """
    with db.read_snapshot() as connection:
        found = _select_pieces(connection, job_id, names, from_, to)
        return {
            name: _read_points(_ChunkReader(connection, job_id, name), pieces, max_points)
            for name, pieces in found.items()
        }


Place = tuple[int, int]  # of a chunk in its series: after_step, number


@dataclass(frozen=True, slots=True)
class _ChunkSlice:
    """Points `start` … `end` - 1 of a chunk."""

    place: Place
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _ChunkReader:
    """Reads the columns of one series."""

    connection: Connection
    job_id: str
    name: str

    def read(self, places: Sequence[Place], *columns: str) -> Iterator[Row[Any]]:
        """The columns of these chunks, which are in order; a few chunks are in memory at a time."""
        row = metric_chunk.c
        key = tuple_(row.after_step, row.number)
        query = select(*(row[name] for name in columns)).where(row.job_id == self.job_id, row.series == self.name)
        for begin in range(0, len(places), _AT_ONCE):
            some = places[begin : begin + _AT_ONCE]
            between = (key >= some[0], key <= some[-1])  # lets the index narrow it down, as IN alone does not
            yield from self.connection.execute(query.where(*between, key.in_(some)).order_by(*key)).all()


def _select_pieces(
    connection: Connection, job_id: str, names: Sequence[str] | None, from_: int | None, to: int | None
) -> dict[str, list[_ChunkSlice]]:
    """Series -> its slices from step `from_` to step `to`."""
    row = metric_chunk.c
    query = (
        select(row.series, row.after_step, row.number, row.points, row.first_step, row.last_step)
        .where(row.job_id == job_id)
        .order_by(row.series, row.after_step, row.number)
    )
    query = query if names is None else query.where(row.series.in_(names))
    query = query if from_ is None else query.where(row.last_step >= from_)
    query = query if to is None else query.where(row.first_step <= to)
    found: dict[str, list[_ChunkSlice]] = {}
    for name, after_step, number, points, first, last in connection.execute(query).all():
        start, end = 0, points
        if (from_ is not None and first < from_) or (to is not None and last > to):
            ((packed,),) = _ChunkReader(connection, job_id, name).read([(after_step, number)], "steps")
            steps = unpack_numbers(packed, "q")
            start = 0 if from_ is None else bisect_left(steps, from_)
            end = points if to is None else bisect_right(steps, to)
        found.setdefault(name, []).append(_ChunkSlice((after_step, number), start, end))
    return found


def _read_points(source: _ChunkReader, pieces: Sequence[_ChunkSlice], most: int | None) -> MetricPoints:
    """The points of these pieces, downsampled to at most `most`."""
    count, places = sum(piece.end - piece.start for piece in pieces), [piece.place for piece in pieces]

    def read_values() -> Iterator["array[float]"]:
        for piece, (packed,) in zip(pieces, source.read(places, "values"), strict=True):
            yield unpack_numbers(packed, "d")[piece.start : piece.end]

    kept = range(count) if most is None or count <= most else downsample_pieces(read_values, count, most)
    wanted = _by_chunk(pieces, kept)
    found: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    rows = source.read([place for place, _ in wanted], "steps", "values", "times")
    for (_, indices), columns in zip(wanted, rows, strict=True):
        for into, packed, code in zip(found, columns, "qdd", strict=True):
            column = unpack_numbers(packed, code)
            into.extend(column[index] for index in indices)
    return MetricPoints(source.name, *found)


def _by_chunk(pieces: Sequence[_ChunkSlice], kept: Sequence[int]) -> list[tuple[Place, list[int]]]:
    """The chunks that hold the kept points, each with the indices of these points in it."""
    found, begin = [], 0
    for piece in pieces:
        end = begin + piece.end - piece.start
        inside = kept[bisect_left(kept, begin) : bisect_left(kept, end)]
        if inside:
            found.append((piece.place, [index - begin + piece.start for index in inside]))
        begin = end
    return found


def _chunk_row(job_id: str, attempt: int, chunk: Chunk) -> dict[str, Any]:
    points = chunk.points
    if not len(points.steps) == len(points.values) == len(points.times) <= CHUNK_POINTS:
        raise ValueError(f"a chunk of {chunk.series} needs 1 to {CHUNK_POINTS} points in three equal columns")
    return {
        "job_id": job_id,
        "series": chunk.series,
        "after_step": chunk.after_step,
        "number": chunk.number,
        "attempt": write_generation(attempt, chunk.rollbacks),
        "first_step": min(points.steps),
        "last_step": max(points.steps),
        "points": len(points.steps),
        "steps": pack_numbers(points.steps, "q"),
        "values": pack_numbers(points.values, "d"),
        "times": pack_numbers(points.times, "d"),
    }
