"""Metrics: column chunks in, series out.

A chunk holds at most 1,000 points of one series and belongs to the segment behind the checkpoint at `after_step` (0
before there is any). Taking a job back to its checkpoint at step s is one DELETE of the segments with after_step >= s.
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, delete, select

from core.db.session import Database
from core.db.tables import metric_chunk
from core.db.upsert import insert_or_replace
from core.jobs.events import add_event
from core.jobs.fence import Fence, fenced
from core.jobs.state import touch
from core.jobs.thinning import thinned

CHUNK_POINTS: Final = 1000
MOST_ROLLBACKS: Final = 1024  # of one attempt; a job asks for a hundred at most


@dataclass(frozen=True, slots=True)
class Points:
    """Points of one series in order: optimizer steps, values, unix times in seconds; equally many of each."""

    series: str
    steps: Sequence[int]
    values: Sequence[float]
    times: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chunk:
    """The `number`-th chunk (from 0) of a series in its segment; the last one may be written again as it grows.

    `rollbacks` is how often its attempt had gone back before it.
    """

    series: str
    after_step: int
    number: int
    points: Points
    rollbacks: int = 0


def pack(values: Iterable[float], code: str) -> bytes:
    """Little-endian bytes of int64 ("q") or float64 ("d") values."""
    column: array[Any] = array(code, values)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def unpack(data: bytes, code: str) -> "array[Any]":
    """What `pack` packed."""
    column: array[Any] = array(code)
    column.frombytes(data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def put_chunks(connection: Connection, job_id: str, attempt: int, chunks: Iterable[Chunk]) -> None:
    """Write chunks in the caller's fenced transaction; writing one again replaces it, so a retry does no harm."""
    rows = [_row(job_id, attempt, chunk) for chunk in chunks if len(chunk.points.steps)]
    insert_or_replace(connection, metric_chunk, rows)


def record_points(db: Database, fence: Fence, chunks: Iterable[Chunk]) -> None:
    """Write chunks under the fence.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced(db, fence, exclusive=True) as connection:
        put_chunks(connection, fence.job_id, fence.attempt, chunks)
        touch(connection, fence.job_id)


def writing(attempt: int, rollbacks: int) -> int:
    """A number that grows whenever points are taken back: readers know by it what of theirs is still true."""
    return attempt * MOST_ROLLBACKS + rollbacks


def roll_back(db: Database, fence: Fence, step: int, message: str) -> None:
    """The run is back at `step` and goes on from there: what came behind is taken back, with a warning that says why.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced(db, fence, exclusive=True) as connection:
        drop_after(connection, fence.job_id, step)
        data = {"code": "rolled_back", "message": message, "step": step}
        add_event(connection, fence.job_id, fence.attempt, "warning", data)
        touch(connection, fence.job_id)


def drop_after(connection: Connection, job_id: str, step: int) -> None:
    """Forget what came behind the checkpoint at `step` (0: everything): the next attempt writes it again."""
    connection.execute(
        delete(metric_chunk).where(metric_chunk.c.job_id == job_id, metric_chunk.c.after_step >= step),
    )


def series_names(db: Database, job_id: str) -> list[str]:
    """The names of the job's series, sorted."""
    query = select(metric_chunk.c.series).where(metric_chunk.c.job_id == job_id).distinct()
    with db.read() as connection:
        return sorted(connection.execute(query).scalars())


@dataclass(frozen=True, slots=True)
class Columns:
    """All points of one series, eight bytes a number."""

    steps: "array[int]"
    values: "array[float]"
    times: "array[float]"


def columns(
    db: Database, job_id: str, names: Sequence[str] | None = None, *, from_: int | None = None, to: int | None = None
) -> dict[str, Columns]:
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
    whole: dict[str, Columns] = {}
    for name, steps, values, times in found:
        one = whole.setdefault(name, Columns(array("q"), array("d"), array("d")))
        one.steps.extend(unpack(steps, "q"))
        one.values.extend(unpack(values, "d"))
        one.times.extend(unpack(times, "d"))
    return whole


def series(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    job_id: str,
    names: Sequence[str] | None = None,
    *,
    from_: int | None = None,
    to: int | None = None,
    max_points: int | None = None,
) -> dict[str, Points]:
    """The named series (all when None) from step `from_` to step `to`, both included.

    A series of more than `max_points` points is thinned; its extremes and any NaN stay. Unknown names are left out.
    """
    whole = columns(db, job_id, names, from_=from_, to=to)
    return {name: _shown(name, one, from_, to, max_points) for name, one in whole.items()}


def _shown(name: str, whole: Columns, from_: int | None, to: int | None, max_points: int | None) -> Points:
    steps, values, times = whole.steps, whole.values, whole.times
    kept: Sequence[int] = range(len(steps))
    if from_ is not None or to is not None:
        low, high = (steps[0] if from_ is None else from_), (steps[-1] if to is None else to)
        kept = [index for index, step in enumerate(steps) if low <= step <= high]
    if max_points is not None and len(kept) > max_points:
        inside = array("d", (values[index] for index in kept))
        kept = [kept[place] for place in thinned(inside, max_points)]
    return Points(
        name,
        [steps[index] for index in kept],
        [values[index] for index in kept],
        [times[index] for index in kept],
    )


def _row(job_id: str, attempt: int, chunk: Chunk) -> dict[str, Any]:
    points = chunk.points
    if not len(points.steps) == len(points.values) == len(points.times) <= CHUNK_POINTS:
        raise ValueError(f"a chunk of {chunk.series} needs 1 to {CHUNK_POINTS} points in three equal columns")
    return {
        "job_id": job_id,
        "series": chunk.series,
        "after_step": chunk.after_step,
        "number": chunk.number,
        "attempt": writing(attempt, chunk.rollbacks),
        "first_step": min(points.steps),
        "last_step": max(points.steps),
        "points": len(points.steps),
        "steps": pack(points.steps, "q"),
        "values": pack(points.values, "d"),
        "times": pack(points.times, "d"),
    }
