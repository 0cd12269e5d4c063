"""Metric chunks: a query finds chunks that overlap, are missing or are out of order, and returns only those."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Subquery, and_, case, func, or_, select

from core.db.tables import metric_chunk
from core.jobs.metrics.chunks import CHUNK_POINTS, MOST_ROLLBACKS

_MOST: Final = 20  # of one page: a job with one broken chunk often has many
_NUMBER_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class ChunkSum:
    """The chunks of one job together; `attempt` is the highest of their attempts, `broken` how many have a problem."""

    chunks: int
    points: int
    attempt: int
    broken: int


@dataclass(frozen=True, slots=True)
class BrokenChunk:
    """A chunk that contradicts the rules of its series."""

    job_id: str
    series: str
    after_step: int
    number: int
    problem: str


def read_chunks(connection: Connection, within: Any) -> tuple[dict[str, ChunkSum], list[BrokenChunk]]:
    """Sums by job, and some of the broken ones; `within` bounds the column job_id."""
    judged = _chunks_with_problems(within)
    row = judged.c
    sums = select(
        row.job_id, func.count(), func.sum(row.points), func.max(row.attempt), func.count(row.problem)
    ).group_by(row.job_id)
    found = {
        job_id: ChunkSum(chunks, int(points), attempt // MOST_ROLLBACKS, broken)
        for job_id, chunks, points, attempt, broken in connection.execute(sums)
    }
    if not any(each.broken for each in found.values()):
        return found, []
    where = (row.job_id, row.series, row.after_step, row.number)
    broken = select(*where, row.problem).where(row.problem.is_not(None)).order_by(*where).limit(_MOST)
    return found, [BrokenChunk(*each) for each in connection.execute(broken)]


def _chunks_with_problems(within: Any) -> Subquery:
    """Each chunk joined with the one before it in its series, and its problem, or NULL."""
    row = metric_chunk.c
    sizes = [func.length(row[name]).label(f"{name}_bytes") for name in ("steps", "values", "times")]
    plain = [row[name] for name in ("job_id", "series", "after_step", "number", "attempt", "points")]
    inner = select(*plain, row.first_step, row.last_step, *sizes).where(within(row.job_id)).subquery("chunk")
    one = inner.c
    series, order = (one.job_id, one.series), (one.after_step, one.number)
    names = ("after_step", "number", "attempt", "last_step")
    before = [func.lag(one[name]).over(partition_by=series, order_by=order).label(f"{name}_before") for name in names]
    placed = select(*one, *before).subquery("placed")
    return select(*placed.c, case(*_problem_conditions(placed.c), else_=None).label("problem")).subquery("judged")


def _problem_conditions(row: Any) -> Sequence[tuple[ColumnElement[bool], str]]:
    """(condition, problem). Comparisons with NULL (there is no chunk before) are never true."""
    first, last, points = row.first_step, row.last_step, row.points
    same = row.after_step_before == row.after_step
    bytes_ = _NUMBER_BYTES * points
    return (
        (or_(points < 1, points > CHUNK_POINTS, last - first + 1 < points), "its points do not fit its steps"),
        (or_(row.steps_bytes != bytes_, row.values_bytes != bytes_, row.times_bytes != bytes_), "its columns differ"),
        (first < row.after_step, "it begins before the checkpoint that it follows"),
        (first <= row.last_step_before, "it overlaps the chunk before it"),
        (and_(~same, row.after_step < row.last_step_before), "the chunk before it reaches over its checkpoint"),
        (row.number != case((same, row.number_before + 1), else_=0), "a chunk is missing before it"),
        (row.attempt < row.attempt_before, "it is of an earlier attempt than the chunk before it"),
    )
