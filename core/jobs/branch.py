"""Jobs that continue from another job's checkpoint: a retry with the same spec, a fork with changed fields.

The child gets its own copy of the metrics up to that step, and begins at its parent's checkpoint, which is not removed
while the child may need it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Select, insert, literal, select

from core.db.session import Database
from core.db.tables import checkpoint, job, job_state, metric_chunk
from core.errors import Conflict, FieldProblem, InvalidSpec
from core.ids import new_id
from core.jobs.attempt.state import Fits, State, require_version
from core.jobs.checkpoints.records import CheckpointRow, find_checkpoint
from core.jobs.kinds import TRAIN
from core.jobs.plugins import naming_missing_plugins
from core.jobs.queue.submit import Idempotency, SubmitContext, SubmitResult, claim_idempotency_key, insert_job
from core.jobs.verbs import lock_owned_job
from core.lifecycle import Status, displayed_status
from core.recipe.branch import fork_spec, keep_data, reset_parts
from core.recipe.parse import parse_job
from core.recipe.plan import KINDS, ExecutionPlan
from core.recipe.spec import JobSpec
from core.recipe.stored import read_stored

MOST_STEPS_TOLD = 20


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """Where a child branches off; without a checkpoint it begins at the start."""

    verb: Literal["retry", "fork"]
    parent: State
    checkpoint: CheckpointRow | None
    anew: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        return self.checkpoint.step if self.checkpoint else 0


def create_retry(  # noqa: PLR0913 - where, who, under which promise and condition
    db: Database,
    job_id: str,
    entry: SubmitContext,
    *,
    again: bool = False,
    idempotency: Idempotency | None = None,
    fits: Fits | None = None,
) -> SubmitResult:
    """A new job with the spec of one that failed or was cancelled, from its last good checkpoint. The old job stays.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has not ended, or has succeeded, or has a retry already and `again` is False; or a plug-in of it
            is not installed here; or its dataset was deleted (DataGone).
        InvalidSpec: this release does not accept its spec any more.
        QuotaExceeded, StorageFull, IdempotencyMismatch: as for any job.
    """
    with db.write() as connection:
        parent = lock_owned_job(connection, entry.project, job_id)
        new = new_id(TRAIN.id_prefix)
        if (first := claim_idempotency_key(connection, entry.project, idempotency, new)) != new:
            return SubmitResult(first, created=False, needs=_needs(connection, first))
        # Only now: the first request with this key has changed the parent's version.
        require_version(fits, parent.version)
        _may_retry(connection, entry.project, parent, again=again)
        origin = _last_position(connection, parent)
        with naming_missing_plugins(connection, job_id):
            # A new job is validated by the rules of this release, on the data that it had.
            document = _document(connection, job_id)
            had = read_stored(JobSpec, document).data
            spec = parse_job(json.dumps(document).encode(), keep_data(had))
        slot = _insert_child(connection, new, spec, entry, origin)
    return SubmitResult(new, created=True, needs=slot)


def create_fork(  # noqa: PLR0913 - where, what, who, under which promise and condition
    db: Database,
    job_id: str,
    entry: SubmitContext,
    *,
    changes: Mapping[str, Any],
    at: int | str | None = None,
    idempotency: Idempotency | None = None,
    fits: Fits | None = None,
) -> SubmitResult:
    """A new job that shares the history of another one up to a checkpoint, and continues with some fields changed.

    `at` is the step or the id of a resumable checkpoint; by default it is the newest one.

    Raises:
        NotFound: there is no such job of this project.
        PreconditionFailed: `fits` does not take its version.
        Conflict: it has no resumable checkpoint yet, a plug-in of it is not installed here, or its dataset was
            deleted (DataGone).
        InvalidSpec: there is no such checkpoint, or a fork cannot make these changes.
        QuotaExceeded, StorageFull, IdempotencyMismatch: as for any job.
    """
    with db.write() as connection:
        parent = lock_owned_job(connection, entry.project, job_id)
        new = new_id(TRAIN.id_prefix)
        if (first := claim_idempotency_key(connection, entry.project, idempotency, new)) != new:
            return SubmitResult(first, created=False, needs=_needs(connection, first))
        require_version(fits, parent.version)
        with naming_missing_plugins(connection, job_id):
            before = read_stored(JobSpec, _document(connection, job_id))
        kept = _choose_checkpoint(connection, parent, at)
        child = fork_spec(before, changes, kept.step)
        slot = _insert_child(
            connection, new, child, entry, BranchPoint("fork", parent, kept, reset_parts(before, child))
        )
    return SubmitResult(new, created=True, needs=slot)


def _document(connection: Connection, job_id: str) -> dict[str, Any]:
    """The spec as it was stored, with what its owner has edited since."""
    row = connection.execute(select(job.c.spec, job.c.edits).where(job.c.id == job_id)).one()
    return {**json.loads(row.spec), **(row.edits or {})}


def _needs(connection: Connection, job_id: str) -> str:
    """The kind of slot that a stored job needs."""
    return str(connection.execute(select(job_state.c.needs).where(job_state.c.job_id == job_id)).scalar_one())


def _may_retry(connection: Connection, project: str, parent: State, *, again: bool) -> None:
    if parent.status not in {Status.FAILED, Status.CANCELLED}:
        status = displayed_status(parent.status, parent.desired)
        message = f"The job is {status}; only a job that failed or was cancelled can be retried."
        raise Conflict(message, extra={"current_status": status})
    tries = select(job.c.id).where(
        job.c.parent_id == parent.job_id, job.c.parent_verb == "retry", job.c.project == project
    )
    earlier = connection.execute(tries.limit(1)).scalar_one_or_none()
    if earlier and not again:
        message = f'The job was retried already, as {earlier}; send "again": true for one more retry.'
        raise Conflict(message, extra={"current_status": parent.status.value, "retried_as": earlier})


def _last_position(connection: Connection, parent: State) -> BranchPoint:
    """The position of an ended job. Without a checkpoint of its own, a child is at its parent's."""
    kept = find_checkpoint(connection, parent.checkpoint_id) if parent.checkpoint_id else None
    row = connection.execute(select(job.c.parent_verb, job.c.anew).where(job.c.id == parent.job_id)).one()
    if kept is not None and kept.status == "good":
        return BranchPoint("retry", parent, kept, () if kept.job_id == parent.job_id else tuple(row.anew or ()))
    if row.parent_verb == "fork" or row.anew:
        message = "The checkpoint that the job continued from no longer exists; fork another one."
        raise Conflict(message, extra={"current_status": parent.status.value})
    return BranchPoint("retry", parent, None)


def _choose_checkpoint(connection: Connection, parent: State, at: int | str | None) -> CheckpointRow:
    row = checkpoint.c
    query: Select[Any] = (
        select(row.id, row.step)
        .where(row.job_id == parent.job_id, row.status == "good", row.resumable == 1)
        .order_by(row.step.desc(), row.id.desc())
        .with_for_update(read=True)
    )
    found = connection.execute(query).all()
    chosen = next((one.id for one in found if at is None or at in {one.id, one.step}), None)
    kept = find_checkpoint(connection, chosen) if chosen else None
    if kept is None:
        if not found and at is None:
            status = displayed_status(parent.status, parent.desired)
            raise Conflict("The job has no resumable checkpoint yet.", extra={"current_status": status})
        steps = ", ".join(str(one.step) for one in found[:MOST_STEPS_TOLD]) or "none"
        hint = f"steps with a checkpoint: {steps}"
        raise InvalidSpec(errors=(FieldProblem("/at", "the job has no resumable checkpoint there", hint),))
    return kept


def _insert_child(connection: Connection, new: str, spec: JobSpec, entry: SubmitContext, origin: BranchPoint) -> str:
    """Write the child; returns the kind of slot that it needs."""
    kept, parent = origin.checkpoint, origin.parent.job_id
    columns = select(job.c.plan, job.c.initial_id, job_state.c.needs).join(job_state, job_state.c.job_id == job.c.id)
    before = connection.execute(columns.where(job.c.id == parent)).one()
    facts = {"parent_id": parent, "parent_verb": origin.verb, "parent_step": origin.step, "anew": origin.anew}
    facts["initial_id"] = before.initial_id  # for a retry that has to begin at the start
    state: dict[str, Any] = {"checkpoint_id": kept.id if kept else None, "needs": TRAIN.slot_needed(spec)}
    if kept:
        run = spec.shape().run
        state["progress"] = {"step": kept.step, "epoch": kept.epoch, "steps": run.total_steps if run.bounded else None}
        state["progress"]["fraction"] = kept.step / run.total_steps if run.bounded else 0.0
        if spec.deterministic and spec.resources.device == "auto":
            state["needs"] = before.needs
        if origin.verb == "retry" and _plan_fits(before.plan, state["needs"]):
            facts["plan"] = before.plan  # the same bits need the same execution
    insert_job(
        connection,
        TRAIN,
        new,
        spec,
        entry,
        facts=lambda: facts,
        state=state,
        detail=f"{origin.verb} of {parent}, from step {origin.step}",
    )
    if kept:
        _copy_past_points(connection, parent, new, kept.step)
    return str(state["needs"])


def _plan_fits(plan: str | None, needs: str) -> bool:
    """Whether a slot of the kind that a job needs can carry out a plan."""
    return plan is not None and needs in {"any", KINDS[ExecutionPlan.model_validate_json(plan).device]}


def _copy_past_points(connection: Connection, parent: str, child: str, step: int) -> None:
    """The points before `step`, as if the child had written them before its first attempt."""
    row = metric_chunk.c
    names = [column.name for column in metric_chunk.columns]
    own: dict[str, Any] = {"job_id": literal(child), "attempt": literal(0)}
    copied = select(*(own.get(name, row[name]).label(name) for name in names)).where(
        row.job_id == parent, row.after_step < step
    )
    connection.execute(insert(metric_chunk).from_select(names, copied))
