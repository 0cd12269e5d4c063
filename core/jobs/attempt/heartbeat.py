"""The heartbeat: it extends the lease, stores the progress, and returns what the owner has requested."""

from typing import Any, Final

from sqlalchemy import select, update

from core.db.session import Database, database_now
from core.db.tables import job, job_state
from core.jobs.attempt.fence import Fence, fenced_transaction
from core.jobs.splits import record_split
from core.lifecycle import Desired, Status

WHOLE_RUN: Final = "whole_run_seconds"
"""Key in the stored progress: seconds that the whole run takes at its present rate. Readers see an ETA instead."""


def visible_progress(progress: dict[str, Any]) -> dict[str, Any]:
    """The part of the stored progress that readers see."""
    return {name: value for name, value in progress.items() if name != WHOLE_RUN}


def record_heartbeat(
    db: Database,
    fence: Fence,
    *,
    lease_seconds: float,
    progress: dict[str, Any] | None = None,
) -> Desired | None:
    """Extend the lease and return the desired state; None means fenced: this attempt is over."""
    values: dict[str, Any] = {"lease_until": database_now() + lease_seconds}
    if progress is not None:
        values |= {"progress": progress, "version": job_state.c.version + 1}
    row = job_state.c
    statement = (
        update(job_state)
        .where(row.job_id == fence.job_id, row.attempt == fence.attempt, row.status == Status.RUNNING.value)
        .values(**values)
        .returning(row.desired)
    )
    with db.write() as connection:
        desired = connection.execute(statement).scalar_one_or_none()
    return None if desired is None else Desired(desired)


def report_start(
    db: Database,
    fence: Fence,
    *,
    environment: dict[str, Any],
    resume: dict[str, Any] | None = None,
    split: str | None = None,
) -> None:
    """Store the device of this attempt, and how it resumed: {"fidelity": exact | approximate, "digest": …}.

    A job stays approximate once one of its attempts was. `split` is stored at the first attempt that reports it.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced_transaction(db, fence, exclusive=True) as connection:
        facts: dict[str, Any] = {"environment": environment}
        if resume is not None:
            earlier = connection.execute(select(job.c.resume).where(job.c.id == fence.job_id)).scalar_one()
            facts["resume"] = worst_fidelity(earlier or {}, resume)
        connection.execute(update(job).where(job.c.id == fence.job_id).values(**facts))
        if split is not None:
            record_split(connection, fence.job_id, split)
        connection.execute(
            update(job_state).where(job_state.c.job_id == fence.job_id).values(version=job_state.c.version + 1),
        )


def worst_fidelity(earlier: dict[str, Any], resume: dict[str, Any]) -> dict[str, Any]:
    """This attempt's resume with the fidelity of the worst attempt so far, and the reasons of all of them."""
    if earlier.get("fidelity") != "approximate":
        return resume
    reasons = dict.fromkeys((*earlier.get("reasons", ()), *resume.get("reasons", ())))
    return {**resume, "fidelity": "approximate", "reasons": list(reasons)}
