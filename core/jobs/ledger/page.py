"""A page of jobs with all of their rows, read in one snapshot: every transaction is seen whole or not at all."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, func, select, true

from core.db.tables import analysis_input, checkpoint, event, job, job_label, job_state
from core.jobs.ledger.chunks import BrokenChunk, ChunkSum, read_chunks
from core.jobs.ledger.rules import CheckpointLine, InputLine, JobLine
from core.jobs.ledger.timeline import Step

_TABLES = {
    "state": job_state,
    "label": job_label,
}  # read only to find rows without a job


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """`last` is the id of its last job; None: there are no more. `strays` are rows of jobs that do not exist."""

    jobs: list[JobLine]
    last: str | None
    checkpoints: dict[str, list[CheckpointLine]]
    inputs: dict[str, list[InputLine]]
    timelines: dict[str, list[Step]]
    events: dict[str, tuple[int, int]]  # count, highest attempt
    chunks: dict[str, ChunkSum]
    broken: list[BrokenChunk]
    strays: list[tuple[str, str]]  # table, job


def read_page(connection: Connection, after: str, size: int) -> LedgerPage:
    """The jobs whose ids follow `after`, and every row between them."""
    jobs = list(_read_jobs(connection, after, size))
    last = jobs[-1].id if len(jobs) == size else None

    def within_page(column: ColumnElement[Any]) -> ColumnElement[bool]:
        return (column > after) & (true() if last is None else column <= last)

    checkpoints: dict[str, list[CheckpointLine]] = defaultdict(list)
    for row in connection.execute(_line_columns(CheckpointLine, checkpoint).where(within_page(checkpoint.c.job_id))):
        checkpoints[row.job_id].append(CheckpointLine(*row))
    inputs: dict[str, list[InputLine]] = defaultdict(list)
    for row in connection.execute(_select_inputs(within_page)):
        inputs[row.analysis_id].append(InputLine(*row))
    timelines: dict[str, list[Step]] = defaultdict(list)
    told = select(event.c.job_id, event.c.attempt, event.c.data).where(event.c.type == "status")
    for job_id, attempt, data in connection.execute(
        told.where(within_page(event.c.job_id)).order_by(event.c.job_id, event.c.id)
    ):
        timelines[job_id].append((attempt, str(data.get("status"))))
    grouped = select(event.c.job_id, func.count(), func.max(event.c.attempt)).group_by(event.c.job_id)
    events = {row[0]: (row[1], row[2]) for row in connection.execute(grouped.where(within_page(event.c.job_id)))}
    chunks, broken = read_chunks(connection, within_page)
    found = {"checkpoint": set(checkpoints), "input": set(inputs), "event": set(events), "metric": set(chunks)}
    for name, table in _TABLES.items():
        rows = connection.execute(select(table.c.job_id).where(within_page(table.c.job_id)).distinct())
        found[name] = set(rows.scalars())
    known = {line.id for line in jobs}
    strays = [(name, job_id) for name, ids in found.items() for job_id in sorted(ids - known)]
    return LedgerPage(jobs, last, checkpoints, inputs, timelines, events, chunks, broken, strays)


def _read_jobs(connection: Connection, after: str, size: int) -> Iterator[JobLine]:
    row, state, known = job.c, job_state.c, checkpoint.c
    query = (
        select(
            *(
                row.id,
                row.kind,
                row.project,
                row.plan.is_not(None),
                row.started_at,
                row.finished_at,
                row.stop_reason,
                row.error,
            ),
            *(state.status, state.desired, state.attempt, state.lease_until, state.worker, state.checkpoint_id),
            *(state.project, row.parent_id, known.job_id, known.status, known.resumable),
        )
        .join_from(job, job_state, row.id == state.job_id, isouter=True)
        .join(checkpoint, known.id == state.checkpoint_id, isouter=True)
        .where(row.id > after)
        .order_by(row.id)
        .limit(size)
    )
    for found in connection.execute(query):
        *facts, whose, status, resumable = found
        facts.append(None if whose is None else (whose, status, bool(resumable)))
        yield JobLine(*facts)


def _select_inputs(within: Callable[[ColumnElement[Any]], ColumnElement[bool]]) -> Select[Any]:
    row = analysis_input.c
    return (
        select(row.analysis_id, row.position, row.job_id, row.checkpoint_id, job.c.project, checkpoint.c.status)
        .join_from(analysis_input, job, job.c.id == row.job_id, isouter=True)
        .join(checkpoint, checkpoint.c.id == row.checkpoint_id, isouter=True)
        .where(within(row.analysis_id))
        .order_by(row.analysis_id, row.position)
    )


def _line_columns(line: type[CheckpointLine], table: Any) -> Any:
    return select(*(table.c[column.name] for column in fields(line)))
