"""What a worker that waits asks of the database: one read in each round of each part, and one connection."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text

from core.db.pool import ShrinkingPool
from core.db.session import Database, open_database
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.health.workers import list_worker_views
from core.settings import Settings
from core.store.base import StoreTransient
from core.store.local import LocalStore
from tests.support.jobs import OWNER, HeardHints, last_tick, run_out, running, state_of, submitted
from tests.support.rounds import Rounds
from tests.support.statements import told
from worker.attempt import Slot, WorkerContext
from worker.launcher import ExecLauncher
from worker.slots import SlotPoller, SlotPool
from worker.worker_report import WorkerReporter


def pool_of(db: Database) -> ShrinkingPool:
    """Its connections on PostgreSQL."""
    pool = db._writer.pool
    assert isinstance(pool, ShrinkingPool)
    return pool


def shop_of(db: Database, home: Path, stopping: threading.Event) -> WorkerContext:
    """A worker without anything that trains."""
    no_scratch = cast("Any", None)
    return WorkerContext(
        "idle", Settings(home=home), db, LocalStore(home / "store"), ExecLauncher(), no_scratch, stopping
    )


def reconciler_of(db: Database, home: Path) -> Reconciler:
    return Reconciler(db, LocalStore(home / "store"), HeardHints(), Settings(home=home))


class Waited(SlotPool):
    """All its slots have been free for long."""

    def idle_kinds(self, seconds: float) -> Any:
        return super().idle_kinds(min(seconds, 0.0))


def test_a_poll_is_one_read_however_many_slots_are_free(db: Database, tmp_path: Path) -> None:
    slots = Waited([Slot(number, "cpu") for number in range(8)])
    with told(db) as asked:
        SlotPoller(shop_of(db, tmp_path, Rounds(3)), slots)._poll_loop()
    assert len(asked) == 3
    both = Waited([Slot(0, "gpu"), Slot(1, "cpu"), Slot(2, "cpu")])
    with told(db) as asked:
        SlotPoller(shop_of(db, tmp_path, Rounds(3)), both)._poll_loop()
    assert len(asked) == 3


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_a_poll_wakes_as_many_slots_as_there_are_jobs(
    db: Database, tmp_path: Path, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[Any] = []
    monkeypatch.setattr("worker.slots.serve_slots", lambda _, __, kinds: woken.extend(kinds))
    for _ in range(jobs):
        submitted(db)
    poll = SlotPoller(shop_of(db, tmp_path, Rounds(1)), Waited([Slot(number, "cpu") for number in range(3)]))
    poll._poll_loop()
    poll.stop()
    assert woken == ["cpu"] * min(jobs, 3)


def test_the_poll_slows_down_while_hints_arrive(db: Database, tmp_path: Path) -> None:
    stopping, slots = Rounds(3), SlotPool([Slot(0, "cpu")])
    poll = SlotPoller(shop_of(db, tmp_path, stopping), slots)
    slots.record_hint()
    with told(db) as asked:
        poll._poll_loop()
    assert stopping.waits == [2.0, 4.0, 4.0, 4.0]
    assert len(asked) == 2  # a slot that became free a moment ago is polled in a slow round: the next is 4 s away


def test_a_report_that_says_nothing_new_is_not_written(db: Database, tmp_path: Path) -> None:
    slots = SlotPool([Slot(0, "cpu"), Slot(1, "cpu")])
    reporter = WorkerReporter(shop_of(db, tmp_path, threading.Event()), slots)
    reporter._stopped = Rounds(5)
    with told(db) as asked:
        reporter._report_loop()
    assert sum("INSERT" in statement for statement, _ in asked) == 1
    assert slots.take_slot("cpu") is not None
    reporter._stopped = Rounds(1)
    reporter._report_loop()
    assert list_worker_views(db, OWNER)[0].slots["cpu"].free == 1


def test_a_reconciler_looks_once_where_another_one_makes_the_rounds(db: Database, tmp_path: Path) -> None:
    busy, idle = reconciler_of(db, tmp_path), reconciler_of(db, tmp_path)
    busy.tick()
    run_out(db, (fence := running(db)).job_id)
    idle._stopping = rounds = Rounds(1)
    with told(db) as asked:
        idle._run()
    assert len(asked) == 1
    assert rounds.waits == [2.0, 3.0]  # with the 2 s of a round that never comes still no gap
    last_tick(db, 2.1)
    idle._stopping = rounds = Rounds(1)
    idle._run()
    assert state_of(db, fence.job_id)["status"] == "queued"
    assert rounds.waits == [2.0, 2.0]


def test_a_reconciler_that_fails_lets_others_go_first(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Or it would always come first again, and nobody would get to what it cannot do."""
    caplog.set_level(logging.CRITICAL)
    broken = reconciler_of(db, tmp_path)

    def fail() -> int:
        raise StoreTransient("away")

    monkeypatch.setattr(broken, "apply_desired_states", fail)
    broken._stopping = rounds = Rounds(1)
    broken._run()
    assert rounds.waits == [2.0, 4.0]


@pytest.fixture
def watched(postgresql_url: str) -> Iterator[Database]:
    with closing(open_database(postgresql_url)) as database:
        yield database


def connections(database: Database) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    with database.read() as connection:
        return int(connection.execute(text(query)).scalar_one())


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_connections_that_nobody_wants_any_more_are_closed(watched: Database, postgresql_url: str) -> None:
    with closing(open_database(postgresql_url)) as busy:
        with busy.read(), busy.read(), busy.read():
            assert connections(watched) == 4
        connections(busy)
        assert connections(watched) == 4, "they may be wanted again"
        pool_of(busy).idle_seconds = -1.0
        for _ in range(3):
            connections(busy)
        assert eventually(lambda: connections(watched) == 2)  # a server's process takes a moment to end
        with busy.read(), busy.read(), busy.read():
            assert connections(watched) == 4


def test_who_comes_a_moment_too_early_gets_the_connection_that_comes_back(postgresql_url: str) -> None:
    with closing(open_database(postgresql_url)) as database:
        pool_of(database).patience_seconds = 20.0
        held = database.read()
        held.__enter__()
        back = threading.Timer(0.05, held.__exit__, (None, None, None))
        back.start()
        assert connections(database) == 1
        back.join()


@pytest.mark.parametrize("trusting", [False, True])
def test_a_lost_connection_is_found_before_or_at_its_next_use(postgresql_url: str, *, trusting: bool) -> None:
    """A process that tries again whatever fails asks without a ping; the others never see a connection that is gone."""
    with (
        closing(open_database(postgresql_url)) as other,
        closing(open_database(postgresql_url, trusting=trusting)) as db,
    ):
        assert connections(db) == 1
        with other.read() as connection:
            end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.execute(text(f"{end} AND datname = current_database()"))
        if trusting:
            with pytest.raises(Exception, match="terminating connection"):
                connections(db)
        assert connections(db) == 2
