"""The reconciler: takes jobs from workers that are gone, from nobody else, and never twice."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import update

from core.db.session import Database, database_now, open_database
from core.db.tables import job_state, service_state
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.queries import get_job_view
from core.lifecycle import Status
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.databases import Server
from tests.support.jobs import (
    OWNER,
    HeardHints,
    last_tick,
    run_out,
    running,
    set_state,
    state_of,
    submitted,
    taken,
)

Make = Callable[..., Reconciler]


@pytest.fixture
def hints() -> HeardHints:
    return HeardHints()


@pytest.fixture
def make(db: Database, hints: HeardHints, tmp_path: Path) -> Make:
    """A reconciler on the test's database; changes are settings."""

    def build(database: Database = db, **changes: object) -> Reconciler:
        settings = Settings(home=tmp_path, **changes)  # type: ignore[arg-type]
        return Reconciler(database, LocalStore(tmp_path / "store"), hints, settings)

    return build


@pytest.fixture
def reconciler(make: Make) -> Reconciler:
    """One that has ticked before: the first tick of all counts as a gap."""
    made = make()
    made.tick()
    return made


def test_a_lost_job_is_queued_again(db: Database, reconciler: Reconciler) -> None:
    fence, fine = running(db), running(db)
    run_out(db, fence.job_id)
    set_state(db, fence.job_id, published_at=5.0)
    assert reconciler.reclaim_expired_leases() == 1
    state = state_of(db, fence.job_id)
    assert (state["status"], state["losses"], state["published_at"]) == ("queued", 1, None)
    assert (state["attempt"], state["lease_until"]) == (fence.attempt, None)
    assert state_of(db, fine.job_id)["status"] == "running"
    assert reconciler.reclaim_expired_leases() == 0
    assert get_job_view(db, OWNER, fence.job_id).status_detail == "worker lost (1 of 3 without a checkpoint)"


@pytest.mark.parametrize(("desired", "status"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_lost_job_goes_where_its_owner_wants_it(
    db: Database,
    reconciler: Reconciler,
    desired: str,
    status: str,
) -> None:
    fence = running(db)
    set_state(db, fence.job_id, desired=desired, losses=2)
    run_out(db, fence.job_id)
    reconciler.tick()
    assert state_of(db, fence.job_id)["status"] == status


def test_a_poison_job_ends_after_three_losses(db: Database, reconciler: Reconciler) -> None:
    job_id = running(db).job_id
    for expected in ("queued", "queued", "failed"):
        run_out(db, job_id)
        reconciler.tick()
        assert state_of(db, job_id)["status"] == expected
        taken(db)
    view = get_job_view(db, OWNER, job_id)
    assert view.error is not None
    assert view.error["code"] == "worker_lost"


@pytest.mark.parametrize("silence", [7.0, 3600.0, -3600.0])
def test_after_a_gap_nothing_is_taken_away(db: Database, reconciler: Reconciler, silence: float) -> None:
    """The database was away, or its clock jumped: nobody could beat, and nobody is to blame."""
    fence = running(db)
    set_state(db, fence.job_id, lease_until=1e12 if silence < 0 else 1.0)
    last_tick(db, silence)
    assert reconciler.reclaim_expired_leases() == 0
    state = state_of(db, fence.job_id)
    assert state["status"] == "running"
    assert state["lease_until"] == pytest.approx(time.time() + 12.0, abs=5.0)
    run_out(db, fence.job_id)
    assert reconciler.reclaim_expired_leases() == 1


def test_a_machine_that_stalls_regularly_keeps_no_job_of_a_dead_worker(db: Database, reconciler: Reconciler) -> None:
    """Each round is a gap: one more lease for each worker, and the next only for those that have beaten since."""
    dead, fine = running(db), running(db)
    for fence in (dead, fine):
        run_out(db, fence.job_id)
    last_tick(db, 7.0)
    assert reconciler.reclaim_expired_leases() == 0
    assert (
        record_heartbeat(db, fine, lease_seconds=-1.0) is not None
    )  # and then the machine stood still for longer than a lease
    run_out(db, dead.job_id)
    set_state(db, dead.job_id, spared_until=job_state.c.lease_until)  # as if the lease of the gap had run out
    last_tick(db, 7.0)
    assert reconciler.reclaim_expired_leases() == 1
    assert [state_of(db, fence.job_id)["status"] for fence in (dead, fine)] == ["queued", "running"]


def test_a_gap_gives_nothing_to_a_worker_that_has_just_beaten(db: Database, reconciler: Reconciler) -> None:
    """It would be its extension until the next beat, which a second stall may prevent."""
    fence = running(db)
    before = state_of(db, fence.job_id)
    last_tick(db, 7.0)
    assert reconciler.reclaim_expired_leases() == 0
    assert state_of(db, fence.job_id) == before


def test_a_reconciler_does_not_wait_for_another_one(postgresql_url: str, hints: HeardHints, tmp_path: Path) -> None:
    with closing(open_database(postgresql_url, pool_size=2)) as database:
        waiting = Reconciler(database, LocalStore(tmp_path / "store"), hints, Settings(home=tmp_path))
        waiting.reclaim_expired_leases()
        run_out(database, running(database).job_id)
        with database.write() as rival:
            rival.execute(update(service_state).where(service_state.c.name == "tick").values(at=database_now()))
            assert waiting.reclaim_expired_leases() == 0  # one that waits is refused by the database's limit of 5 s
        assert waiting.reclaim_expired_leases() == 1


def test_the_first_tick_of_all_takes_nothing(db: Database, make: Make) -> None:
    fence = running(db, lease=-5.0)
    assert make().reclaim_expired_leases() == 0
    state = state_of(db, fence.job_id)
    assert state["status"] == "running"
    assert state["lease_until"] == pytest.approx(time.time() + 12.0, abs=5.0)


def test_wishes_for_jobs_that_nobody_runs_are_carried_out(db: Database, reconciler: Reconciler) -> None:
    wishes = {("queued", "cancel"): "cancelled", ("queued", "pause"): "paused", ("paused", "cancel"): "cancelled"}
    wishes |= {("paused", "run"): "queued", ("queued", "run"): "queued", ("paused", "pause"): "paused"}
    ids = {pair: submitted(db) for pair in wishes}
    for (status, desired), job_id in ids.items():
        set_state(db, job_id, status=status, desired=desired)
    assert reconciler.apply_desired_states() == 4
    assert {pair: state_of(db, job_id)["status"] for pair, job_id in ids.items()} == wishes
    assert reconciler.apply_desired_states() == 0


def test_hints_go_out_once_and_again_later(db: Database, reconciler: Reconciler, hints: HeardHints) -> None:
    first = submitted(db)
    submitted(db, resources={"device": "gpu"})
    assert reconciler.send_hints() == 2
    assert sorted(hints.heard) == ["any", "gpu"]
    assert reconciler.send_hints() == 0
    now = time.time()
    assert state_of(db, first)["published_at"] == pytest.approx(now, abs=5.0)
    for moment in (now - 20.0, now + 3600.0):
        set_state(db, first, published_at=moment)
        assert reconciler.send_hints() == 1
    running_now = taken(db)
    assert running_now is not None
    set_state(db, running_now.job_id, published_at=None)
    assert reconciler.send_hints() == 0


def test_several_reconcilers_take_a_job_once(database_url: str, make: Make, reconciler: Reconciler) -> None:
    pools = [open_database(database_url, pool_size=2) for _ in range(4)]
    fences = [running(pools[0]) for _ in range(10)]
    for fence in fences:
        run_out(pools[0], fence.job_id)
    rivals = [make(pool) for pool in pools]
    try:
        with ThreadPoolExecutor(4) as threads:
            for _ in range(3):
                list(threads.map(lambda rival: rival.tick(), rivals))
        states = [state_of(pools[0], fence.job_id) for fence in fences]
        assert [(state["status"], state["losses"]) for state in states] == [("queued", 1)] * 10
    finally:
        for pool in pools:
            pool.close()


def test_a_finished_job_is_left_alone(db: Database, reconciler: Reconciler, hints: HeardHints) -> None:
    fence = running(db)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    set_state(db, fence.job_id, desired="cancel", lease_until=1.0)
    before = state_of(db, fence.job_id)
    reconciler.tick()
    assert state_of(db, fence.job_id) == before
    assert hints.heard == []


def eventually(check: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if check():
            return True
        time.sleep(0.02)
    return False


def test_the_thread_lives_through_an_outage(
    postgresql_server: Server,
    postgresql_url: str,
    hints: HeardHints,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The database refuses everybody for a while: a line in the log, and on it goes."""
    caplog.set_level(logging.WARNING)
    database = open_database(postgresql_url)
    settings = Settings(home=tmp_path, tick_seconds=0.05)
    reconciler = Reconciler(database, LocalStore(tmp_path / "store"), hints, settings)
    reconciler.start()
    try:
        job_id = submitted(database)
        assert eventually(lambda: state_of(database, job_id)["published_at"] is not None)
        with postgresql_server.refusing(postgresql_url):
            assert eventually(lambda: "the reconciler will try again" in caplog.text)
        taken(database)
        run_out(database, job_id)
        assert eventually(lambda: state_of(database, job_id)["status"] == "queued")
    finally:
        reconciler.stop()
        database.close()
