"""The feed of a job: what is new since a reader's cursor, events, points and progress, each exactly once.

One page is read in one snapshot: a page with a terminal status also holds every point and event before it. Readers with
different cursors that are served together end at the same cursor.
"""

import json
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, and_, case, func, select

from core.db.session import Database, database_now
from core.db.tables import job_state, metric_chunk
from core.jobs.attempt.heartbeat import visible_progress
from core.jobs.events.cursor import Cursor
from core.jobs.events.record import EventView, events_after
from core.jobs.metrics.chunks import unpack_numbers
from core.lifecycle import TERMINAL, Status

STORED: Final = ("status", "checkpoint", "log", "warning")
TYPES: Final = (*STORED, "progress", "metrics")
_MOST_ROWS: Final = 64
_MOST_JOBS: Final = 500  # in one statement


@dataclass(frozen=True, slots=True)
class FeedQuery:
    """A reader's request: the items of these types after this cursor."""

    job_id: str
    cursor: Cursor
    types: frozenset[str]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One item; `cursor` is the reader's position after it. Progress and metrics have no id of their own."""

    cursor: Cursor
    id: int | None
    type: str
    attempt: int
    at: float
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FeedPage:
    """One answer, read at the job's `version`. `more`: another page is ready. `ended`: nothing follows."""

    items: tuple[FeedItem, ...]
    cursor: Cursor
    version: int
    more: bool
    ended: bool


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """The most events, and the most points of all series together, in one answer."""

    events: int = 200
    points: int = 5000


FEED_LIMITS: Final = FeedLimits()


def read_versions(db: Database, job_ids: Collection[str]) -> dict[str, int]:
    """Job id -> version; deleted jobs are left out."""
    ids, row = sorted(job_ids), job_state.c
    found: dict[str, int] = {}
    with db.read() as connection:
        for start in range(0, len(ids), _MOST_JOBS):
            query = select(row.job_id, row.version).where(row.job_id.in_(ids[start : start + _MOST_JOBS]))
            found.update((job_id, version) for job_id, version in connection.execute(query))
    return found


def read_feed(
    db: Database, job_id: str, asks: Sequence[FeedQuery], limits: FeedLimits = FEED_LIMITS
) -> list[FeedPage] | None:
    """The answers to requests about one job, in their order; None when there is no such job."""
    row = job_state.c
    query: Select[Any] = select(row.version, row.status, row.attempt, row.progress, database_now().label("at"))
    with db.read_snapshot() as connection:
        state = connection.execute(query.where(row.job_id == job_id)).one_or_none()
        return None if state is None else [_read_page(connection, state, ask, limits) for ask in asks]


def _read_page(connection: Connection, state: Row[Any], ask: FeedQuery, limits: FeedLimits) -> FeedPage:
    """Events, then points, then progress; the event that ends the job comes last."""
    over = Status(state.status) in TERMINAL
    events = _read_events(connection, ask, limits.events)
    more = len(events) == limits.events
    last = events.pop() if over and events and _ends_job(events[-1]) else None
    cursor, items = ask.cursor, []
    for found in events:
        cursor = replace(cursor, event=found.id)
        items.append(_as_item(cursor, found))
    if "metrics" in ask.types:
        cursor, points, behind = _read_points(connection, ask.job_id, cursor, limits.points)
        items += [FeedItem(cursor, None, "metrics", state.attempt, state.at, {"series": points})] if points else []
        more = more or behind
    if not more and "progress" in ask.types and state.progress:
        progress = visible_progress(state.progress)
        digest = f"{zlib.crc32(json.dumps(progress).encode()):08x}"
        if digest != cursor.progress:
            cursor = replace(cursor, progress=digest)
            items.append(FeedItem(cursor, None, "progress", state.attempt, state.at, progress))
    if not more and last is not None:
        cursor = replace(cursor, event=last.id)
        items.append(_as_item(cursor, last))
    return FeedPage(tuple(items), cursor, state.version, more, ended=over and not more)


def _read_events(connection: Connection, ask: FeedQuery, most: int) -> list[EventView]:
    wanted = ask.types.intersection(STORED)
    if not wanted:
        return []
    query = events_after(ask.job_id, ask.cursor.event, most, sorted(wanted))
    return [EventView(*row) for row in connection.execute(query)]


def _ends_job(found: EventView) -> bool:
    return found.type == "status" and found.data["status"] in {status.value for status in TERMINAL}


def _as_item(cursor: Cursor, found: EventView) -> FeedItem:
    return FeedItem(cursor, found.id, found.type, found.attempt, found.at, found.data)


def _read_points(connection: Connection, job_id: str, cursor: Cursor, most: int) -> tuple[Cursor, dict[str, Any], bool]:
    """New points of each series, with the index of the first: they replace what the reader holds from there on."""
    row, held = metric_chunk.c, dict(cursor.counts)
    known = case((row.attempt <= cursor.attempt, row.points), else_=0)
    sums = select(row.series, func.sum(row.points), func.sum(known), func.max(row.attempt)).group_by(row.series)
    found = connection.execute(sums.where(row.job_id == job_id)).all()
    totals = {name: int(total) for name, total, _, _ in found}
    counts = dict.fromkeys(held, 0) | {name: min(held.get(name, 0), int(kept)) for name, _, kept, _ in found}
    pieces = {name: _new_piece(start) for name, start in counts.items() if start < held.get(name, 0)}
    budget = most
    if any(counts[name] < total for name, total in totals.items()):
        starts = {name: counts[name] for name in totals}
        for name, *columns, points, upto in connection.execute(_unseen_chunks(job_id, starts)):
            piece = pieces.setdefault(name, _new_piece(counts[name]))
            skip = int(upto) - points
            for key, data, code in zip(("steps", "values", "times"), columns, "qdd", strict=True):
                piece[key] += unpack_numbers(data, code)[counts[name] - skip :][:budget]
            counts[name] = piece["offset"] + len(piece["steps"])
            budget = most - sum(len(one["steps"]) for one in pieces.values())
            if budget <= 0:
                break
    attempt = max((int(one) for *_, one in found), default=cursor.attempt)
    behind = any(counts[name] < total for name, total in totals.items())
    return cursor.with_counts(attempt, counts), dict(sorted(pieces.items())), behind


def _new_piece(offset: int) -> dict[str, Any]:
    return {"offset": offset, "steps": [], "values": [], "times": []}


def _unseen_chunks(job_id: str, counts: dict[str, int]) -> Select[Any]:
    """The chunks with points after these counts, ordered by segment, so that all series advance together."""
    row = metric_chunk.c
    running = func.sum(row.points).over(partition_by=row.series, order_by=(row.after_step, row.number))
    keys = select(row.series, row.after_step, row.number, running.label("upto")).where(row.job_id == job_id).subquery()
    same = and_(*(row[name] == keys.c[name] for name in ("series", "after_step", "number")), row.job_id == job_id)
    return (
        select(row.series, row.steps, row["values"], row.times, row.points, keys.c.upto)
        .join(keys, same)
        .where(keys.c.upto > case(counts, value=keys.c.series, else_=0))
        .order_by(row.after_step, row.number, row.series)
        .limit(_MOST_ROWS)
    )
