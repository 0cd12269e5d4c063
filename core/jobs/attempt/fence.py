"""The fence: a write counts only while (job, attempt) is running, and the job's state row stays locked until commit.

Without the lock, PostgreSQL could commit the insert of a superseded attempt (a zombie) after the reconciler has taken
the job away, although the check of each transaction was right.
"""

# ruff: noqa: N818 - Fenced is the word of the protocol

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from core.db.session import Database
from core.jobs.attempt.state import State, lock_state
from core.lifecycle import Status


@dataclass(frozen=True, slots=True)
class Fence:
    """The writer of a fenced transaction: one attempt of one job."""

    job_id: str
    attempt: int


class Fenced(Exception):
    """This attempt no longer owns its job; its writes are refused."""


@contextmanager
def fenced_transaction(db: Database, fence: Fence, *, exclusive: bool = False) -> Iterator[Connection]:
    """A write transaction that holds the fence; `exclusive` when it is going to change the state row itself.

    Raises:
        Fenced: the job is not running under this attempt.
    """
    with db.write() as connection:
        lock_fence(connection, fence, exclusive=exclusive)
        yield connection


def lock_fence(connection: Connection, fence: Fence, *, exclusive: bool) -> State:
    """Lock the state row in the caller's transaction and return it, or raise Fenced."""
    state = lock_state(connection, fence.job_id, exclusive=exclusive)
    if state is None or state.attempt != fence.attempt or state.status is not Status.RUNNING:
        raise Fenced(fence)
    return state
