"""Log lines and warnings that an attempt writes between its heartbeats."""

from collections.abc import Iterable
from typing import Any

from core.db.session import Database
from core.jobs.attempt.fence import Fence, fenced_transaction
from core.jobs.attempt.state import bump_version
from core.jobs.events.record import add_event


def record_events(db: Database, fence: Fence, type_: str, bodies: Iterable[dict[str, Any]]) -> None:
    """Write events of one type under the fence, in their order.

    The lock is exclusive, so that the ids of a job's events become visible in their order: a reader that has seen
    one has seen all before it.

    Raises:
        Fenced: this attempt is over.
    """
    with fenced_transaction(db, fence, exclusive=True) as connection:
        for body in bodies:
            add_event(connection, fence.job_id, fence.attempt, type_, body)
        bump_version(connection, fence.job_id)
