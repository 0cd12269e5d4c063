"""The claim: one statement picks the queued job with the lowest rank for a slot and assigns it to that slot alone."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from core.db.session import Database, database_now
from core.db.tables import job, job_state
from core.jobs.analyses import AnalysisInput, ResultInput, load_inputs, load_results
from core.jobs.attempt.state import Transition, lock_state, transition
from core.jobs.checkpoints.records import CheckpointRow, find_checkpoint
from core.jobs.events.record import add_event
from core.jobs.kinds import KINDS, JobKind, QueuedSpec, Reads, find_kind
from core.jobs.metrics.chunks import drop_points_after
from core.jobs.plugins import lacks_no_plugin
from core.jobs.queue.quotas import below_limit, exceeds_running_limit
from core.lifecycle import LIGHT, Desired, Status
from core.recipe.plan import KINDS as SLOT_KINDS
from core.recipe.plan import ExecutionPlan, Planned, gpu_choice_message, plan_for_other_device
from core.recipe.plugins import plugin_identities

log = logging.getLogger(__name__)

PlanFor = Callable[[Planned], ExecutionPlan]


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that this worker owns under `attempt` until the lease ends. It resumes from `checkpoint`; None: the start.

    The checkpoint may be another job's: then the parts of the run that `anew` names are reset. A fork, and the retry of
    one, cannot begin at the start (`is_fork`). `initial` is the checkpoint whose weights a job begins with instead of
    those of its seed. `looks` and `findings` are the inputs of an analysis: weights, or results of other analyses.
    """

    job_id: str
    attempt: int
    kind: str
    spec: QueuedSpec
    plan: ExecutionPlan
    checkpoint: CheckpointRow | None
    losses: int
    failures: int
    initial: CheckpointRow | None = None
    anew: tuple[str, ...] = ()
    is_fork: bool = False
    looks: tuple[AnalysisInput, ...] = ()
    findings: tuple[ResultInput, ...] = ()


def anything_waiting(db: Database, needs: Sequence[str], plugins: Collection[str] = ()) -> bool:
    """Whether a claim might find something. A plain read: nothing is locked."""
    return count_waiting(db, needs, 1, plugins) > 0


def count_waiting(db: Database, needs: Sequence[str], most: int, plugins: Collection[str] = ()) -> int:
    """How many jobs a claim might find, counted up to `most`. A plain read, too."""
    query = _select_waiting(needs, plugins).limit(most)
    with db.read() as connection:
        return len(connection.execute(query).all())


def claim_job(  # noqa: PLR0913 - for which slot of whom, and what is known there
    db: Database,
    *,
    worker: str,
    needs: Sequence[str],
    plan_for: PlanFor,
    lease_seconds: float,
    kinds: Sequence[JobKind[Any]] = KINDS,
    plugins: Collection[str] = (),
) -> Claim | None:
    """Take the queued job with the lowest rank whose need is among `needs`; None when there is none.

    The same transaction increments the attempt and deletes metrics after the checkpoint. The first claim stores the
    plan that `plan_for` gives; later attempts get the stored one, unless the job need not be deterministic and was
    planned for another kind of device. A job that cannot be read or planned (its spec or its kind is from another
    release) fails at once: at the head of the queue it would block all other jobs. Jobs whose project already runs as
    many as its limit allows are skipped, and so are jobs that need a plug-in which is not among `plugins`. `kinds` are
    the kinds of job that this worker knows.
    """
    while True:
        with db.write() as connection:
            taken = connection.execute(_claim_statement(worker, needs, plugins, lease_seconds)).one_or_none()
            if taken is None:
                return None
            if exceeds_running_limit(connection, taken.project, taken.most_running, taken.needs):
                connection.rollback()
                continue
            try:
                return _load_claim(connection, taken, worker, plan_for, kinds)
            except ValueError as error:
                log.exception("job %s cannot be run", taken.job_id)
                _fail_job(connection, taken.job_id, error)


def _select_waiting(needs: Sequence[str], plugins: Collection[str]) -> Any:
    row = job_state.c
    return select(row.job_id).where(
        row.status == Status.QUEUED.value,
        row.desired == Desired.RUN.value,
        row.needs.in_(needs),
        below_limit(),
        lacks_no_plugin(plugins),
    )


_TAKEN = ("job_id", "attempt", "checkpoint_id", "losses", "failures", "project", "most_running", "needs")


def _claim_statement(worker: str, needs: Sequence[str], plugins: Collection[str], lease_seconds: float) -> Any:
    row = job_state.c
    # Concurrent claims skip the locked row and take the next one; SQLite has one writer at a time anyway.
    best = (
        _select_waiting(needs, plugins)
        .order_by(row.rank, row.job_id)
        .limit(1)
        .with_for_update(skip_locked=True, of=job_state)
    )
    return (
        update(job_state)
        .where(row.job_id == best.scalar_subquery(), row.status == Status.QUEUED.value)
        .values(
            status=Status.RUNNING.value,
            attempt=row.attempt + 1,
            lease_until=database_now() + lease_seconds,
            worker=worker,
            version=row.version + 1,
        )
        .returning(*(row[name] for name in _TAKEN))
    )


def _load_claim(
    connection: Connection, taken: Row[Any], worker: str, plan_for: PlanFor, kinds: Sequence[JobKind[Any]]
) -> Claim:
    columns = select(job.c.kind, job.c.spec, job.c.plan, job.c.anew, job.c.parent_verb, job.c.initial_id)
    row = connection.execute(columns.where(job.c.id == taken.job_id)).one()
    spec, reads = _read_spec(kinds, row.kind, row.spec)
    facts: dict[str, Any] = {"started_at": func.coalesce(job.c.started_at, database_now())}
    before = None if row.plan is None else ExecutionPlan.model_validate_json(row.plan)
    inputs = load_inputs(connection, taken.job_id) if reads == "weights" else ()
    plan = _resolve_plan(spec, inputs, before, plan_for)
    if plan != before:
        facts["plan"] = plan.stored_json()
        _update_needs(connection, taken.job_id, plan)
    connection.execute(update(job).where(job.c.id == taken.job_id).values(**facts))
    checkpoint = find_checkpoint(connection, taken.checkpoint_id) if taken.checkpoint_id else None
    drop_points_after(connection, taken.job_id, checkpoint.step if checkpoint else 0)
    detail = f"attempt {taken.attempt} on {worker}" + (f", from step {checkpoint.step}" if checkpoint else "")
    add_event(
        connection,
        taken.job_id,
        taken.attempt,
        "status",
        {"status": Status.RUNNING.value, "detail": detail},
    )
    if plan != before:
        _record_plan_events(connection, taken, spec, plan, anew=before is not None)
    return Claim(
        taken.job_id,
        taken.attempt,
        row.kind,
        spec,
        plan,
        checkpoint,
        taken.losses,
        taken.failures,
        None if checkpoint or not row.initial_id else find_checkpoint(connection, row.initial_id),
        tuple(row.anew or ()),
        row.parent_verb == "fork" or bool(row.anew),
        inputs,
        load_results(connection, taken.job_id) if reads == "results" else (),
    )


def _read_spec(kinds: Sequence[JobKind[Any]], name: str, stored: str) -> tuple[QueuedSpec, Reads | None]:
    """The spec of a job, and what it reads. ValueError where this release cannot read it."""
    kind = find_kind(kinds, name)
    if kind is None:
        raise ValueError(f"there is no kind of job {name!r}")
    spec = kind.read_spec(stored)
    return spec, kind.reads(spec) if kind.reads else None


def _resolve_plan(
    spec: Planned, inputs: Sequence[AnalysisInput], before: ExecutionPlan | None, plan_for: PlanFor
) -> ExecutionPlan:
    """The stored plan; a new one for this slot where there is none, or where it is for another kind of device."""
    if before is None:
        plan = plan_for(spec)
        theirs = {name: identity for each in inputs for name, identity in plugin_identities(each.spec).items()}
        return plan.model_copy(update={"plugins": theirs}) if theirs else plan
    if before.deterministic:
        return before
    here = plan_for(spec)
    return before if here.device == before.device else plan_for_other_device(before, here)


def _record_plan_events(
    connection: Connection, taken: Row[Any], spec: Planned, plan: ExecutionPlan, *, anew: bool
) -> None:
    """Record events about the plan's device: a warning if it is of another kind, a log line if the spec named none."""
    if anew:
        kind = SLOT_KINDS[plan.device].upper()
        resumed = f"continues on a {kind}: this run is approximate from here"
        message = resumed if taken.checkpoint_id else f"begins again from the start, on a {kind}"
        data = {"code": "planned_anew", "message": message}
        add_event(connection, taken.job_id, taken.attempt, "warning", data)
    if chosen := gpu_choice_message(spec, plan):
        add_event(connection, taken.job_id, taken.attempt, "log", {"level": "info", "message": chosen})


def _update_needs(connection: Connection, job_id: str, plan: ExecutionPlan) -> None:
    """Another kind of device gives other bits: a job that must be exact waits for the kind that it began on.

    A job of the light lane stays there.
    """
    if plan.deterministic:
        mine = update(job_state).where(job_state.c.job_id == job_id, job_state.c.needs != LIGHT)
        connection.execute(mine.values(needs=SLOT_KINDS[plan.device]))


def _fail_job(connection: Connection, job_id: str, error: ValueError) -> None:
    state = lock_state(connection, job_id)
    if state is not None:
        problem = {
            "code": "engine_error",
            "message": f"This job cannot be run by this release: {error}",
            "remedy": "Submit it again, or run a worker of the release that it was submitted to.",
        }
        transition(connection, state, Transition(Status.FAILED, "cannot be run", job={"error": problem}))
