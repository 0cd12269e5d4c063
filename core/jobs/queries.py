"""Reads: one job, many jobs, as their project sees them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, Row, Select, bindparam, select

from core.db.session import Database
from core.db.tables import checkpoint, event, job, job_state
from core.errors import NotFound
from core.jobs.attempt.heartbeat import WHOLE_RUN, visible_progress
from core.jobs.kinds import TRAIN
from core.jobs.plugins import needed_plugins, read_plugins
from core.jobs.queue.rank import count_ahead
from core.jobs.search import JobSearch
from core.lifecycle import TERMINAL, Desired, Status, displayed_status


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """`ahead` jobs that need the same slots are served first; `position` counts from 1."""

    position: int
    ahead: int


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """An entry of the timeline: from `at` (unix seconds) on, the job was `status`."""

    status: str
    at: float
    detail: str | None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as its project sees it; times are unix seconds. `version` grows with every change but those of `queue`.

    `whole_run` is how many seconds the whole run takes at its last rate, if that is known.
    `plugins` are those that a worker must have, with their versions.
    """

    id: str
    project: str
    kind: str
    name: str | None
    spec: dict[str, Any]
    plan: dict[str, Any] | None
    status: str
    status_detail: str | None
    desired: str
    needs: str
    most_running: int | None
    attempt: int
    losses: int
    failures: int
    version: int
    progress: dict[str, Any]
    whole_run: float | None
    queue: QueuePosition | None
    timeline: tuple[TimelineEntry, ...]
    results: dict[str, Any] | None
    stop_reason: str | None
    error: dict[str, Any] | None
    resume: dict[str, Any] | None
    environment: dict[str, Any] | None
    checkpoint_id: str | None
    checkpoint_step: int | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    parent_id: str | None
    parent_verb: str | None
    parent_step: int | None
    children: tuple[str, ...]
    plugins: dict[str, str]


def get_job_view(db: Database, project: str, job_id: str) -> JobView:
    """One job.

    Raises:
        NotFound: there is no such job of this project.
    """
    with db.read() as connection:
        views = _read_views(connection, _select_jobs().where(job.c.id == job_id, job.c.project == project))
    if not views:
        raise NotFound("There is no job with this id.")
    return views[0]


def job_version(db: Database, project: str, job_id: str) -> int:
    """The job's version alone: cheap enough to ask again and again.

    Raises:
        NotFound: there is no such job of this project.
    """
    query = (
        select(job_state.c.version)
        .join(job, job.c.id == job_state.c.job_id)
        .where(job.c.id == job_id, job.c.project == project)
    )
    with db.read() as connection:
        version = connection.execute(query).scalar_one_or_none()
    if version is None:
        raise NotFound("There is no job with this id.")
    return int(version)


def list_job_views(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    search: JobSearch | None = None,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[JobView], bool]:
    """At most `limit` jobs after the id `after`, and whether more follow. Ids sort by the time of creation.

    Raises:
        InvalidRequest: there is no such status.
    """
    conditions = [job.c.kind == TRAIN.name, *(search or JobSearch()).where_clauses()]
    return list_views(db, project, conditions, after=after, limit=limit, order=order)


def list_views(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    conditions: Sequence[ColumnElement[bool]],
    *,
    after: str | None,
    limit: int,
    order: Literal["asc", "desc"],
) -> tuple[list[JobView], bool]:
    """The same, of the project's jobs and analyses for which the conditions hold."""
    query = _select_jobs().where(job.c.project == project, *conditions)
    if after is not None:
        query = query.where(job.c.id < after if order == "desc" else job.c.id > after)
    query = query.order_by(job.c.id.desc() if order == "desc" else job.c.id).limit(limit + 1)
    with db.read() as connection:
        views = _read_views(connection, query)
    return views[:limit], len(views) > limit


@cache
def _select_jobs() -> Select[Any]:
    """Built once, as are the others: building it costs more than executing it."""
    return (
        select(
            *(job.c[name] for name in _JOB_COLUMNS),
            *(job_state.c[name] for name in _STATE_COLUMNS),
            checkpoint.c.step.label("checkpoint_step"),
            needed_plugins(job.c.id).label("plugins"),
        )
        .join(job_state, job_state.c.job_id == job.c.id)
        .outerjoin(checkpoint, checkpoint.c.id == job_state.c.checkpoint_id)
    )


_JOB_COLUMNS = (
    *("id", "project", "kind", "name", "spec", "edits", "plan", "created_at", "started_at", "finished_at"),
    *("results", "stop_reason", "error", "resume", "environment", "parent_id", "parent_verb", "parent_step"),
)
_STATE_COLUMNS = (
    *("status", "desired", "needs", "most_running", "attempt", "losses", "failures", "version", "progress"),
    "checkpoint_id",
)


def _read_views(connection: Connection, query: Select[Any]) -> list[JobView]:
    rows = connection.execute(query).all()
    ids = [row.id for row in rows]
    timelines, children = _read_timelines(connection, ids), _read_children(connection, rows)
    ahead = count_ahead(connection, [row.id for row in rows if row.status == Status.QUEUED.value])
    return [_as_view(row, timelines.get(row.id, ()), children.get(row.id, ()), ahead.get(row.id, 0)) for row in rows]


def _read_children(connection: Connection, rows: Sequence[Row[Any]]) -> dict[str, tuple[str, ...]]:
    """Parent -> the jobs of the same project that branched off from it, oldest first."""
    if not rows:
        return {}
    projects = {row.id: row.project for row in rows}
    children = connection.execute(_select_children(), {"ids": list(projects)}).all()
    found: dict[str, tuple[str, ...]] = {}
    for parent_id, job_id, project in sorted(children, key=itemgetter(1)):
        if project == projects[parent_id]:
            found[parent_id] = (*found.get(parent_id, ()), job_id)
    return found


@cache
def _select_children() -> Select[Any]:
    """Without ORDER BY and project, which the caller applies: with them SQLite would scan all jobs of a project."""
    child = job.c
    return select(child.parent_id, child.id, child.project).where(child.parent_id.in_(bindparam("ids", expanding=True)))


def _read_timelines(connection: Connection, ids: Sequence[str]) -> dict[str, tuple[TimelineEntry, ...]]:
    if not ids:
        return {}
    found: dict[str, tuple[TimelineEntry, ...]] = {}
    for job_id, at, data in connection.execute(_select_timeline(), {"ids": list(ids)}):
        found[job_id] = (*found.get(job_id, ()), TimelineEntry(data["status"], at, data.get("detail")))
    return found


@cache
def _select_timeline() -> Select[Any]:
    """In the order of the index: ordered by id alone, SQLite might scan the events of all jobs."""
    row = event.c
    return (
        select(row.job_id, row.at, row.data)
        .where(row.job_id.in_(bindparam("ids", expanding=True)), row.type == "status")
        .order_by(row.job_id, row.id)
    )


def _as_view(row: Row[Any], timeline: tuple[TimelineEntry, ...], children: tuple[str, ...], ahead: int) -> JobView:
    columns = row._asdict()
    status, desired = Status(columns.pop("status")), Desired(row.desired)
    columns["spec"] = json.loads(row.spec) | (columns.pop("edits") or {})
    columns["plan"] = None if row.plan is None else json.loads(row.plan)
    columns["plugins"] = read_plugins(columns.pop("plugins"))
    columns |= {"progress": visible_progress(row.progress), "whole_run": row.progress.get(WHOLE_RUN)}
    queued = status is Status.QUEUED
    return JobView(
        **columns,
        status=displayed_status(status, desired),
        status_detail=timeline[-1].detail if timeline else None,
        queue=QueuePosition(position=ahead + 1, ahead=ahead) if queued else None,
        timeline=timeline,
        children=children,
    )


def is_over(view: JobView) -> bool:
    """Whether nothing about the job will change any more."""
    return view.status in {status.value for status in TERMINAL}
