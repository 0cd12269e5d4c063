"""Reads: one dataset, many datasets, as their project sees them.

A stored `queued` becomes the status of the prepare job: queued, preparing, failed or cancelled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, Row, Select, and_, case, func, select

from core.db.session import Database
from core.db.tables import dataset, job, job_state
from core.errors import NotFound
from core.jobs.attempt.heartbeat import visible_progress
from core.jobs.datasets.use import used_by
from core.lifecycle import Status
from core.recipe.data.manifest import DatasetManifest

DatasetStatus = Literal["uploading", "queued", "preparing", "ready", "refused", "failed", "cancelled"]
_OF_JOB: Final = {
    Status.RUNNING: "preparing",
    Status.FAILED: "failed",
    Status.SUCCEEDED: "failed",  # it ended without a result
    Status.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class DatasetView:
    """A dataset as its project sees it; times are unix seconds, `manifest` is None in lists."""

    id: str
    project: str
    name: str
    status: str
    format: str
    filename: str | None
    options: dict[str, Any]
    bytes: int | None
    received: int
    sha256: str | None
    version: str | None
    kind: str | None
    examples: int | None
    stored_bytes: int | None
    warnings: list[str]
    errors: list[dict[str, Any]]
    error: dict[str, Any] | None
    confined: dict[str, Any] | None
    source: dict[str, Any] | None
    manifest: DatasetManifest | None
    progress: dict[str, Any]
    used_by: int
    job_id: str | None
    created_at: float
    finished_at: float | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class DatasetSearch:
    """Datasets with one of these statuses, of this name, of this kind, with this text in name or id."""

    statuses: Sequence[str] = ()
    name: str | None = None
    kind: str | None = None
    text: str | None = None

    def where_clauses(self) -> list[ColumnElement[bool]]:
        row = dataset.c
        found: list[ColumnElement[bool]] = []
        if self.statuses:
            found.append(_displayed_status().in_(self.statuses))
        if self.name is not None:
            found.append(row.name == self.name)
        if self.kind is not None:
            found.append(row.kind == self.kind)
        if self.text:
            words = self.text.lower()
            found.append(
                func.lower(row.name).contains(words, autoescape=True) | row.id.contains(words, autoescape=True)
            )
        return found


def get_dataset_view(db: Database, project: str, dataset_id: str) -> DatasetView:
    """One dataset. Raises NotFound where the project has none of this id."""
    query = _select_views(with_manifest=True).where(dataset.c.id == dataset_id, dataset.c.project == project)
    with db.read() as connection:
        row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound("There is no dataset with this id.")
        return _as_view(row, used_by(connection, [dataset_id])[dataset_id])


def list_dataset_views(  # noqa: PLR0913 - one argument for each parameter of the query
    db: Database,
    project: str,
    search: DatasetSearch,
    *,
    after: str | None = None,
    limit: int = 20,
    order: Literal["asc", "desc"] = "desc",
) -> tuple[list[DatasetView], bool]:
    """At most `limit` datasets after the id `after`, without manifests, and whether more follow."""
    key = dataset.c.id
    query = _select_views(with_manifest=False).where(dataset.c.project == project, *search.where_clauses())
    if after is not None:
        query = query.where(key < after if order == "desc" else key > after)
    query = query.order_by(key.desc() if order == "desc" else key.asc()).limit(limit + 1)
    with db.read() as connection:
        rows = connection.execute(query).all()
        counts = used_by(connection, [row.id for row in rows])
    return [_as_view(row, counts[row.id]) for row in rows[:limit]], len(rows) > limit


def _displayed_status() -> ColumnElement[str]:
    waits = dataset.c.status == "queued"
    of_job = [(and_(waits, job_state.c.status == status.value), word) for status, word in _OF_JOB.items()]
    return case(*of_job, else_=dataset.c.status)


_PLAIN: Final = (
    *("id", "project", "name", "format", "filename", "options", "bytes", "received", "sha256", "version", "kind"),
    *("examples", "stored_bytes", "confined", "source", "job_id", "created_at", "expires_at"),
)


def _select_views(*, with_manifest: bool) -> Select[Any]:
    row = dataset.c
    manifest = [row.manifest] if with_manifest else []
    return (
        select(
            *(row[name] for name in _PLAIN),
            *manifest,
            *(row.warnings, row.errors, row.error, row.finished_at),
            _displayed_status().label("displayed"),
            job.c.error.label("job_error"),
            job.c.finished_at.label("job_finished_at"),
            job_state.c.progress,
        )
        .outerjoin(job, job.c.id == row.job_id)
        .outerjoin(job_state, job_state.c.job_id == row.job_id)
    )


def _progress_of(status: str, stored: dict[str, Any]) -> dict[str, Any]:
    """The last report of the preparation; the one that reads the last bytes may have been too soon after another."""
    shown = visible_progress(stored)
    return {**shown, "fraction": 1.0} if status == "ready" and shown else shown


def _as_view(row: Row[Any], users: int) -> DatasetView:
    found = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for it
    text = found.get("manifest")
    failed = row.displayed == "failed"
    lost = {"code": "engine_error", "message": "The preparation ended without a result.", "remedy": None}
    return DatasetView(
        **{name: found[name] for name in _PLAIN},
        status=row.displayed,
        warnings=row.warnings or [],
        errors=row.errors or [],
        error=(row.error or row.job_error or lost) if failed else None,
        manifest=None if text is None else DatasetManifest.model_validate_json(text),
        progress=_progress_of(row.displayed, row.progress or {}),
        used_by=users,
        finished_at=row.finished_at or (row.job_finished_at if row.displayed != "queued" else None),
    )
