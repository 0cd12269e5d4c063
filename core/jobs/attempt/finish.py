"""The end of an attempt: the job reaches a terminal status, or returns to the queue."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, update

from core.db.session import Database
from core.db.tables import job, job_state
from core.jobs.attempt.fence import Fence, Fenced, lock_fence
from core.jobs.attempt.state import State, Transition, lock_state, transition
from core.jobs.metrics.chunks import Chunk, put_chunks
from core.lifecycle import TERMINAL, Desired, Status
from core.recipe.plan import ExecutionPlan


@dataclass(frozen=True, slots=True)
class TerminalState:
    """How a job ended. `error` is {"code", "message", "remedy"}; `results` is [weights][split][metric]."""

    status: Status
    stop_reason: str | None = None
    error: dict[str, Any] | None = None
    results: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    further: Callable[[Connection], object] | None = None
    """Writes the rows besides that belong to this end, in the same transaction."""


def finish_job(db: Database, fence: Fence, ending: TerminalState, chunks: Iterable[Chunk] = ()) -> None:
    """One fenced transaction: the last points, the terminal status, results, event. Repeating it is harmless.

    Raises:
        Fenced: this attempt is over, and did not end like this.
    """
    with db.write() as connection:
        state = lock_state(connection, fence.job_id)
        if state is None or state.attempt != fence.attempt:
            raise Fenced(fence)
        if state.status in TERMINAL and state.status is ending.status:
            # The same call again, after a commit whose answer was lost.
            return
        if state.status is not Status.RUNNING:
            raise Fenced(fence)
        put_chunks(connection, fence.job_id, fence.attempt, chunks)
        change = Transition(
            ending.status,
            detail=(ending.error or {}).get("message") or ending.stop_reason,
            state={"progress": ending.progress} if ending.progress else {},
            job={"stop_reason": ending.stop_reason, "error": ending.error, "results": ending.results},
        )
        transition(connection, state, change)
        if ending.further is not None:
            ending.further(connection)


def give_back(  # noqa: PLR0913 - two budgets, and their one limit
    db: Database,
    fence: Fence,
    *,
    cause: str,
    lost: bool,
    max_losses: int,
    failed: bool = False,
    plan: ExecutionPlan | None = None,
    progress: dict[str, Any] | None = None,
) -> Status:
    """End the attempt of a running job; returns the new status: queued, or what its owner or its budget of losses sets.

    `lost` counts against the budget of losses without a checkpoint. `failed` counts as one of the job's own failures
    (the caller has compared them with `max_retries`). With neither, no budget is charged. `cause` is a short sentence.
    `plan` replaces the stored execution plan, `progress` the stored progress.

    Raises:
        Fenced: this attempt is over.
    """
    with db.write() as connection:
        state = lock_fence(connection, fence, exclusive=True)
        if plan is not None:
            connection.execute(update(job).where(job.c.id == fence.job_id).values(plan=plan.stored_json()))
        if progress is not None:
            place = update(job_state).where(job_state.c.job_id == fence.job_id)
            connection.execute(place.values(progress=progress))
        if failed and not lost:
            return _requeue_job(connection, state, cause, {"failures": state.failures + 1})
        return revoke_attempt(connection, state, cause=cause, lost=lost, max_losses=max_losses)


def revoke_attempt(connection: Connection, state: State, *, cause: str, lost: bool, max_losses: int) -> Status:
    """End the attempt of a running job whose row is locked. Its owner's request comes first, then its loss budget."""
    losses = state.losses + int(lost)
    if state.desired is Desired.RUN and lost and losses >= max_losses:
        return _lost_too_often(connection, state, cause, losses)
    since = "without a checkpoint" if state.checkpoint_id is None else "since its last checkpoint"
    detail = f"{cause} ({losses} of {max_losses} {since})" if lost else cause
    return _requeue_job(connection, state, detail, {"losses": losses})


def _requeue_job(connection: Connection, state: State, detail: str, counts: dict[str, int]) -> Status:
    target = {
        Desired.RUN: Status.QUEUED,
        Desired.PAUSE: Status.PAUSED,
        Desired.CANCEL: Status.CANCELLED,
    }[state.desired]
    transition(connection, state, Transition(target, detail, state=dict(counts)))
    return target


def _lost_too_often(connection: Connection, state: State, cause: str, losses: int) -> Status:
    error = {
        "code": "stalled" if cause == "stalled" else "worker_lost",
        "message": f"Lost {losses} times without a new checkpoint; the last time: {cause}.",
        "remedy": "See the worker's log for what killed it; write checkpoints more often if the job is only slow.",
    }
    transition(
        connection,
        state,
        Transition(Status.FAILED, error["message"], state={"losses": losses}, job={"error": error}),
    )
    return Status.FAILED
