"""Claiming: the best job, to one claimer, with the stored plan, and nothing in the way of the queue."""

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from core.db.session import Database, open_database
from core.db.tables import job, job_state
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import give_back
from core.jobs.attempt.state import lock_state
from core.jobs.checkpoints.records import mark_corrupt, record_checkpoint
from core.jobs.metrics.chunks import read_series, record_points
from core.jobs.queries import get_job_view
from core.jobs.queue.claim import anything_waiting, claim_job
from core.jobs.verbs import request_cancel
from tests.support.jobs import (
    LEASE,
    OWNER,
    chunk,
    new_checkpoint,
    plan_of,
    running,
    set_state,
    small_spec,
    state_of,
    submitted,
    taken,
)


def test_a_claim_makes_the_job_running_under_a_new_attempt(db: Database) -> None:
    job_id = submitted(db)
    found = taken(db)
    assert found is not None
    assert (found.job_id, found.attempt, found.kind, found.checkpoint) == (job_id, 1, "train", None)
    assert found.spec == small_spec()
    view = get_job_view(db, OWNER, job_id)
    assert (view.status, view.attempt, view.queue) == ("running", 1, None)
    assert view.started_at is not None
    assert [moment.status for moment in view.timeline] == ["queued", "running"]
    state = state_of(db, job_id)
    assert state["lease_until"] - view.started_at == pytest.approx(LEASE, abs=1.0)
    assert state["worker"] == "host:cpu0"


def test_nothing_waiting_gives_nothing(db: Database) -> None:
    assert not anything_waiting(db, ["cpu", "any"])
    assert taken(db) is None


def test_order_is_by_rank_and_then_by_age(db: Database) -> None:
    ids = [submitted(db) for _ in range(4)]
    for job_id, rank in zip(ids, (1000.0, 1002.0, 1001.0, 1001.0), strict=True):
        set_state(db, job_id, rank=rank)
    order = [found.job_id for _ in range(4) if (found := taken(db))]
    assert order == [ids[0], ids[2], ids[3], ids[1]]


def test_a_slot_takes_only_what_it_can_run(db: Database) -> None:
    gpu_job = submitted(db, resources={"device": "gpu"})
    assert not anything_waiting(db, ["cpu", "any"])
    assert taken(db) is None
    assert anything_waiting(db, ["gpu", "any"])
    found = taken(db, needs=("gpu", "any"))
    assert found is not None
    assert found.job_id == gpu_job


def test_a_job_whose_owner_changed_his_mind_is_not_claimed(db: Database) -> None:
    job_id = submitted(db)
    set_state(db, job_id, desired="cancel")
    assert not anything_waiting(db, ["cpu", "any"])
    assert taken(db) is None


def test_the_plan_is_made_once_and_kept(db: Database) -> None:
    fence = running(db)
    give_back(db, fence, cause="worker stopping", lost=False, max_losses=3)
    again = claim_job(
        db,
        worker="other:cpu0",
        needs=["cpu"],
        plan_for=lambda _: pytest.fail("the plan was fixed at the first claim"),
        lease_seconds=LEASE,
    )
    assert again is not None
    assert (again.attempt, again.plan) == (2, plan_of(small_spec()))


def test_a_plan_with_a_field_more_and_a_field_less_is_claimed_and_stays_as_it_is(db: Database) -> None:
    """A release that has another field wrote it, and may have to read it again in a rolling upgrade."""
    fence = running(db)
    give_back(db, fence, cause="worker stopping", lost=False, max_losses=3)
    stored = {**get_job_view(db, OWNER, fence.job_id).plan, "tf32": "never"}  # type: ignore[dict-item]
    assert "micro_batch" not in stored
    with db.write() as connection:
        connection.execute(update(job).where(job.c.id == fence.job_id).values(plan=json.dumps(stored)))
    again = taken(db)
    assert again is not None
    assert (again.attempt, again.plan) == (2, plan_of(small_spec()))
    assert get_job_view(db, OWNER, fence.job_id).plan == stored


@pytest.mark.parametrize(("deterministic", "needs"), [(True, "gpu"), (False, "any")])
def test_an_exact_job_stays_with_the_kind_of_device_it_began_on(
    db: Database,
    deterministic: bool,
    needs: str,
) -> None:
    job_id = submitted(db, deterministic=deterministic)
    claim_job(db, worker="w", needs=["any"], plan_for=lambda spec: plan_of(spec, "cuda"), lease_seconds=LEASE)
    assert state_of(db, job_id)["needs"] == needs


def test_points_behind_the_checkpoint_are_forgotten(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [chunk("train.loss", 0, 3)])
    record_checkpoint(db, fence, new_checkpoint(fence, 5), [chunk("train.loss", 0, 5)], resumable=True)
    record_points(db, fence, [chunk("train.loss", 5, 4, after_step=5), chunk("lr", 5, 4, after_step=5)])
    give_back(db, fence, cause="worker lost", lost=True, max_losses=3)
    found = taken(db)
    assert found is not None
    assert found.checkpoint is not None
    assert found.checkpoint.step == 5
    left = read_series(db, fence.job_id)
    assert list(left) == ["train.loss"]
    assert left["train.loss"].steps == [0, 1, 2, 3, 4]


def test_without_a_checkpoint_every_point_is_forgotten(db: Database) -> None:
    fence = running(db)
    record_points(db, fence, [chunk("train.loss", 0, 3)])
    give_back(db, fence, cause="worker lost", lost=True, max_losses=3)
    taken(db)
    assert read_series(db, fence.job_id) == {}


def test_a_corrupt_checkpoint_falls_back_to_the_one_before(db: Database) -> None:
    fence = running(db)
    first = record_checkpoint(db, fence, new_checkpoint(fence, 5), [chunk("lr", 0, 5)], resumable=True)
    points = [chunk("lr", 5, 5, after_step=5)]
    second = record_checkpoint(db, fence, new_checkpoint(fence, 10), points, resumable=True)
    record_points(db, fence, [chunk("lr", 10, 2, after_step=10)])
    give_back(db, fence, cause="worker lost", lost=True, max_losses=3)
    found = taken(db)
    assert found is not None
    assert found.checkpoint == second
    assert read_series(db, fence.job_id)["lr"].steps == list(range(10))
    now_mine = Fence(fence.job_id, found.attempt)
    assert mark_corrupt(db, now_mine, second.id) == first
    assert read_series(db, fence.job_id)["lr"].steps == list(range(5))
    assert mark_corrupt(db, now_mine, first.id) is None
    assert read_series(db, fence.job_id) == {}
    assert state_of(db, fence.job_id)["checkpoint_id"] is None


def test_a_job_that_cannot_be_read_fails_and_holds_up_nobody(db: Database) -> None:
    broken, unplanned, fine = submitted(db), submitted(db, name="unplanned"), submitted(db)
    for rank, job_id in enumerate((broken, unplanned, fine)):
        set_state(db, job_id, rank=float(rank))
    with db.write() as connection:
        connection.execute(update(job).where(job.c.id == broken).values(spec='{"model": "from the future"}'))

    def plan_for(spec: object) -> object:
        if getattr(spec, "name", None) == "unplanned":
            raise ValueError("no plan for this")
        return plan_of(small_spec())

    found = claim_job(db, worker="w", needs=["any"], plan_for=plan_for, lease_seconds=LEASE)  # type: ignore[arg-type]
    assert found is not None
    assert found.job_id == fine
    with db.read() as connection:
        states = connection.execute(job_state.select().order_by(job_state.c.rank)).all()
    assert [row.status for row in states] == ["failed", "failed", "running"]
    view = get_job_view(db, OWNER, unplanned)
    assert view.error is not None
    assert view.error["code"] == "engine_error"
    assert "no plan for this" in view.error["message"]


def test_a_cancelled_job_is_gone_from_the_queue(db: Database) -> None:
    request_cancel(db, OWNER, submitted(db))
    assert taken(db) is None


def test_many_claimers_at_once_never_get_the_same_job(database_url: str) -> None:
    """Each thread with connections of its own, as workers have."""
    pools = [open_database(database_url, pool_size=2) for _ in range(6)]
    ids = [submitted(pools[0]) for _ in range(30)]

    def all_i_can_get(pool: Database) -> list[tuple[str, int]]:
        got = []
        while found := taken(pool):
            got.append((found.job_id, found.attempt))
        return got

    try:
        with ThreadPoolExecutor(6) as threads:
            got = [one for some in threads.map(all_i_can_get, pools) for one in some]
        assert Counter(got) == Counter((job_id, 1) for job_id in ids)
    finally:
        for pool in pools:
            pool.close()


def test_a_claimer_steps_over_the_row_that_a_rival_holds(postgresql_url: str) -> None:
    """SQLite lets nobody else write; PostgreSQL's rivals must neither wait nor go away with nothing."""
    database = open_database(postgresql_url)
    best, next_best = submitted(database), submitted(database)
    try:
        with database.write() as connection:
            assert lock_state(connection, best) is not None
            found = taken(database)
        assert found is not None
        assert found.job_id == next_best
    finally:
        database.close()


CLAIMER = """
import sys
from core.db.session import open_database
from tests.support.jobs import taken
sys.stdin.read()
database = open_database(sys.argv[1])
while found := taken(database):
    print(found.job_id, found.attempt)
database.close()
"""


def test_many_claiming_processes_never_get_the_same_job(database_url: str) -> None:
    database = open_database(database_url)
    ids = [submitted(database) for _ in range(20)]
    database.close()
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    got = [line for out in [rival.communicate("")[0] for rival in rivals] for line in out.splitlines()]
    assert [rival.returncode for rival in rivals] == [0, 0, 0]
    assert sorted(got) == sorted(f"{job_id} 1" for job_id in ids)
