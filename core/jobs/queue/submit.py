"""Submit a job: one transaction stores it with all of its rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection, insert, select, update

from core.db.session import Database, database_now
from core.db.tables import idempotency as promises
from core.db.tables import job, job_label, job_state
from core.db.upsert import insert_if_absent
from core.errors import IdempotencyMismatch, Unavailable
from core.ids import new_id
from core.jobs.attempt.state import bump_version
from core.jobs.datasets.use import datasets_used, record_use
from core.jobs.events.record import add_event
from core.jobs.health.workers import kinds_seen
from core.jobs.kinds import TRAIN, JobKind, QueuedSpec
from core.jobs.plugins import find_missing_plugins, store_plugins
from core.jobs.projects import owner_of_project, project_of_owner
from core.jobs.queue.quotas import check_queue, check_storage
from core.jobs.queue.rank import no_slot
from core.jobs.warm_start import start_columns
from core.lifecycle import Desired, Status
from core.recipe.plugins import Plugin, plugins_used
from core.recipe.spec import JobSpec
from core.settings import Limits

S = TypeVar("S", bound=QueuedSpec)


@dataclass(frozen=True, slots=True)
class Idempotency:
    """An idempotency key and the digest of the body that it stands for; any digest of the canonical body will do."""

    key: str
    body_digest: str


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The job, whether this call created it, and what it needs (cpu, gpu, any, light), for the hint."""

    job_id: str
    created: bool
    needs: str


@dataclass(frozen=True, slots=True)
class SubmitContext:
    """The owner and project of a new job, the project's limits, and the seconds of waiting that equal a priority point.

    Workers that have not reported for `lost_after` seconds do not count. Without a `project` it is the owner's own.
    """

    owner: str
    limits: Limits
    age_step: float
    lost_after: float = 12.0
    project: str = ""

    def __post_init__(self) -> None:
        """Fill in the project."""
        if not self.project:
            object.__setattr__(self, "project", project_of_owner(self.owner))


def create_job(  # noqa: PLR0913 - who, what, and under which promise and limits
    db: Database,
    spec: JobSpec,
    *,
    owner: str,
    idempotency: Idempotency | None = None,
    age_step: float = 60.0,
    limits: Limits | None = None,
    lost_after: float = 12.0,
    project: str = "",
) -> SubmitResult:
    """Store a resolved spec as a queued job. The same key with the same body gives the job that exists already.

    `age_step` is how many seconds of waiting equal one point of priority. If no worker that has reported in the last
    `lost_after` seconds has a slot for it, the job gets a warning. Without a `project` it is in the owner's own.

    Raises:
        IdempotencyMismatch: the key was used before with another body.
        QuotaExceeded: as many jobs of this project wait as the limits allow.
        StorageFull: the checkpoints of this project take as much as the limits allow.
    """
    entry = SubmitContext(owner, limits or Limits(), age_step, lost_after, project)
    return submit_as(
        TRAIN, db, spec, entry, idempotency, lambda connection: start_columns(connection, entry.project, spec)
    )


def submit_as(  # noqa: PLR0913, PLR0917 - the kind beside the rest
    kind: JobKind[S],
    db: Database,
    spec: S,
    entry: SubmitContext,
    idempotency: Idempotency | None = None,
    facts: Callable[[Connection], Mapping[str, Any]] | None = None,
) -> SubmitResult:
    """Store a spec as a queued job of a kind whose jobs have no inputs; raises as `create_job` does.

    `facts` gives further columns of `job`, see `insert_job`.
    """
    with db.write() as connection:
        job_id = new_id(kind.id_prefix)
        if (first := claim_idempotency_key(connection, entry.project, idempotency, job_id)) != job_id:
            return SubmitResult(first, created=False, needs=kind.slot_needed(spec))
        insert_job(connection, kind, job_id, spec, entry, facts=partial(facts, connection) if facts else dict)
    return SubmitResult(job_id, created=True, needs=kind.slot_needed(spec))


def claim_idempotency_key(connection: Connection, project: str, given: Idempotency | None, job_id: str) -> str:
    """The job that owns the key: `job_id`, also without a key, or the job of an earlier request. Concurrent inserts of
    the same key wait here for our commit.
    """
    if given is None:
        return job_id
    owner = owner_of_project(project)
    promise = {"owner": owner, "key": given.key, "body_digest": given.body_digest}
    if insert_if_absent(connection, promises, **promise, job_id=job_id, created_at=database_now()):
        return job_id
    found = connection.execute(
        select(promises.c.body_digest, promises.c.job_id).where(
            promises.c.owner == owner,
            promises.c.key == given.key,
        ),
    ).one_or_none()
    if found is None:
        # The key expired between the two statements: the next request creates a new job.
        raise Unavailable
    if found.body_digest != given.body_digest:
        raise IdempotencyMismatch
    return str(found.job_id)


def move_promise(connection: Connection, project: str, given: Idempotency, made_id: str) -> None:
    """Let the key, which this transaction has claimed for a new id, give what exists already."""
    mine = (promises.c.owner == owner_of_project(project)) & (promises.c.key == given.key)
    connection.execute(update(promises).where(mine).values(job_id=made_id))


def insert_job(  # noqa: PLR0913 - a job that branches off brings its own columns
    connection: Connection,
    kind: JobKind[S],
    job_id: str,
    spec: S,
    entry: SubmitContext,
    *,
    facts: Callable[[], Mapping[str, Any]] = dict,
    state: Mapping[str, Any] | None = None,
    detail: str | None = None,
) -> None:
    """Write the rows of a queued job of any kind, limits checked, in the caller's transaction.

    `facts`, called once the limits are checked, and `state` are further columns.

    Raises:
        QuotaExceeded: as many jobs of this project wait as the limits allow.
        StorageFull: the checkpoints of this project take as much as the limits allow.
        InvalidSpec: the checkpoint that it should begin with does not exist, or does not fit.
        DataGone: a dataset that it is pinned to was deleted.
    """
    check_queue(connection, entry.project, entry.limits.queued_jobs)
    check_storage(connection, entry.project, entry.limits.stored_bytes)
    further = facts()
    connection.execute(
        insert(job).values(
            id=job_id,
            owner=entry.owner,
            project=entry.project,
            kind=kind.name,
            name=spec.name,
            spec=spec.model_dump_json(),
            created_at=database_now(),
            **further,
        ),
    )
    own = {"needs": kind.slot_needed(spec), "progress": {}} | dict(state or {})
    connection.execute(
        insert(job_state).values(
            job_id=job_id,
            owner=entry.owner,
            project=entry.project,
            status=Status.QUEUED.value,
            desired=Desired.RUN.value,
            attempt=0,
            losses=0,
            failures=0,
            rank=database_now() - spec.priority * entry.age_step,
            most_running=entry.limits.running_jobs,
            version=1,
            **own,
        ),
    )
    _insert_labels(connection, job_id, spec.metadata)
    add_event(connection, job_id, 0, "status", {"status": Status.QUEUED.value, "detail": detail})
    record_use(connection, entry.project, job_id, datasets_used(spec))
    _warn_no_slot(connection, job_id, own["needs"], entry.lost_after)
    require_plugins(connection, job_id, plugins_used(spec), entry.lost_after)
    if parent := further.get("parent_id"):
        bump_version(connection, parent)  # it shows its children


def _insert_labels(connection: Connection, job_id: str, metadata: Mapping[str, str]) -> None:
    if pairs := [{"job_id": job_id, "key": key, "value": value} for key, value in metadata.items()]:
        connection.execute(insert(job_label), pairs)


def require_plugins(connection: Connection, job_id: str, plugins: Sequence[Plugin], lost_after: float) -> None:
    """Store what a worker must have to run the job, and warn where none has it. Without plug-ins nothing is asked."""
    store_plugins(connection, job_id, plugins)
    if missing := find_missing_plugins(connection, plugins, lost_after):
        add_event(connection, job_id, 0, "warning", {"code": "no_plugin", "message": missing})


def _warn_no_slot(connection: Connection, job_id: str, slot: str, lost_after: float) -> None:
    if slot != "any" and (missing := no_slot(slot, kinds_seen(connection, lost_after))):
        add_event(connection, job_id, 0, "warning", {"code": "no_slot", "message": missing})
