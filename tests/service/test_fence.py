"""A zombie writes nothing: whatever it calls, whenever it wakes."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from core.db.session import Database
from core.db.tables import checkpoint, event, job, job_state, metric_chunk
from core.jobs.attempt.fence import Fence, Fenced, fenced_transaction
from core.jobs.attempt.finish import TerminalState, finish_job, give_back, revoke_attempt
from core.jobs.attempt.heartbeat import record_heartbeat, report_start
from core.jobs.attempt.state import lock_state
from core.jobs.checkpoints.records import mark_corrupt, record_checkpoint
from core.jobs.metrics.chunks import record_points
from core.lifecycle import Status
from tests.support.jobs import LEASE, chunk, new_checkpoint, running, submitted, taken

Write = Callable[[Database, Fence], object]

WRITES: dict[str, Write] = {
    "points": lambda db, fence: record_points(db, fence, [chunk("lr", 0, 3)]),
    "checkpoint": lambda db, fence: record_checkpoint(db, fence, new_checkpoint(fence, 3), [], resumable=True),
    "corrupt": lambda db, fence: mark_corrupt(db, fence, "ckpt_x"),
    "start": lambda db, fence: report_start(db, fence, environment={"device": "zombie"}),
    "finish": lambda db, fence: finish_job(
        db, fence, TerminalState(Status.SUCCEEDED, "completed"), [chunk("lr", 0, 3)]
    ),
    "give_back": lambda db, fence: give_back(db, fence, cause="zombie", lost=True, max_losses=3),
}


def everything(db: Database) -> list[object]:
    with db.read() as connection:
        rows: list[object] = [tuple(row) for row in connection.execute(select(job_state)).all()]
        rows += [tuple(row) for row in connection.execute(select(job)).all()]
        for table in (metric_chunk, checkpoint, event):
            rows.append(connection.execute(select(func.count()).select_from(table)).scalar_one())
    return rows


def lose(db: Database, fence: Fence) -> None:
    with db.write() as connection:
        state = lock_state(connection, fence.job_id)
        assert state is not None
        revoke_attempt(connection, state, cause="worker lost", lost=True, max_losses=3)


@pytest.mark.parametrize("since", ["queued", "next attempt", "finished", "unknown"])
def test_a_superseded_attempt_writes_nothing(db: Database, since: str) -> None:
    fence = running(db)
    if since == "unknown":
        fence = Fence("job_00000000000000000000000000", 1)
    else:
        lose(db, fence)
    if since in {"next attempt", "finished"}:
        again = taken(db)
        assert again is not None
        assert again.attempt == fence.attempt + 1
    if since == "finished":
        finish_job(db, Fence(fence.job_id, 2), TerminalState(Status.SUCCEEDED, "completed"))
    before = everything(db)
    for write in WRITES.values():
        with pytest.raises(Fenced):
            write(db, fence)
        assert everything(db) == before
    assert record_heartbeat(db, fence, lease_seconds=LEASE, progress={"step": 9}) is None
    assert everything(db) == before


def test_a_write_that_races_its_own_takeaway_is_refused(db: Database) -> None:
    """The zombie writes while the row that fences it is still being changed: it waits for the commit, and is refused.

    Without a lock on the state row both of its checks would be right when made, and its row would go in.
    """
    for write in WRITES.values():
        race(db, write)
    with db.read() as connection:
        assert connection.execute(select(func.count()).select_from(metric_chunk)).scalar_one() == 0
        assert connection.execute(select(func.count()).select_from(checkpoint)).scalar_one() == 0


def race(db: Database, write: Write) -> None:
    fence = running(db)
    started = threading.Event()

    def zombie() -> None:
        started.set()
        with pytest.raises(Fenced):
            write(db, fence)

    with ThreadPoolExecutor(1) as threads:
        with db.write() as connection:
            state = lock_state(connection, fence.job_id)
            assert state is not None
            late = threads.submit(zombie)
            assert started.wait(5)
            revoke_attempt(connection, state, cause="worker lost", lost=True, max_losses=1)
            threading.Event().wait(0.1)
        late.result(10)


def test_the_fence_holds_until_the_commit(db: Database) -> None:
    """Who wants to take the job away waits for a fenced write that has begun, so it is whole or not at all."""
    fence = running(db)
    taken_away = threading.Event()

    def take() -> None:
        lose(db, fence)
        taken_away.set()

    with ThreadPoolExecutor(1) as threads:
        with fenced_transaction(db, fence) as connection:
            rival = threads.submit(take)
            assert not taken_away.wait(0.2)
            record = select(job_state.c.status).where(job_state.c.job_id == fence.job_id)
            assert connection.execute(record).scalar_one() == "running"
        rival.result(10)
    assert taken_away.is_set()


def test_an_attempt_that_never_was_is_fenced(db: Database) -> None:
    job_id = submitted(db)
    for attempt in (0, 1):
        with pytest.raises(Fenced), fenced_transaction(db, Fence(job_id, attempt)):
            pytest.fail("a queued job has no owner")
