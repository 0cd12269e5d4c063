"""Limits: exact also when many ask at once, and in nobody else's way."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text, update

from core.db.session import Database, open_database
from core.db.tables import job, job_state
from core.errors import QuotaExceeded
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.keys import create_key, find_key, list_keys, record_key_use
from core.jobs.queue.claim import anything_waiting
from core.jobs.queue.submit import Idempotency, create_job
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from core.settings import Limits
from tests.support.jobs import OWNER, set_state, small_spec, state_of, submitted, taken

TWO = Limits(running_jobs=2)


def limited(db: Database, limits: Limits, owner: str = OWNER, **changes: Any) -> str:
    return create_job(db, small_spec(**changes), owner=owner, limits=limits).job_id


def statuses(db: Database) -> list[str]:
    with db.read() as connection:
        return list(connection.execute(select(job_state.c.status).order_by(job_state.c.job_id)).scalars())


def test_no_more_jobs_of_an_owner_run_than_allowed(db: Database) -> None:
    mine = [limited(db, TWO) for _ in range(3)]
    first, second = taken(db), taken(db)
    assert first is not None
    assert second is not None
    assert [first.job_id, second.job_id] == mine[:2]
    assert not anything_waiting(db, ["cpu", "any"])
    assert taken(db) is None
    assert state_of(db, mine[2])["attempt"] == 0
    finish_job(db, Fence(first.job_id, first.attempt), TerminalState(Status.SUCCEEDED))
    assert anything_waiting(db, ["cpu", "any"])
    third = taken(db)
    assert third is not None
    assert third.job_id == mine[2]


def test_who_is_at_the_limit_holds_up_nobody_and_loses_no_place(db: Database) -> None:
    """Fair: the others go first only as long as the limit holds, and by their own rank."""
    running = limited(db, Limits(running_jobs=1), priority=100)
    assert taken(db) is not None
    waiting = limited(db, Limits(running_jobs=1), priority=100)
    others = [limited(db, Limits(running_jobs=1), owner="bob"), submitted(db)]
    got = [found.job_id for _ in others if (found := taken(db))]
    assert got == others
    assert taken(db) is None
    finish_job(db, Fence(running, 1), TerminalState(Status.SUCCEEDED))
    assert taken(db) is None, "alice's second job, which has no limit of its own, still runs"
    later = limited(db, Limits(), owner="carol")
    finish_job(db, Fence(others[1], 1), TerminalState(Status.SUCCEEDED))
    got = [found.job_id for _ in range(2) if (found := taken(db))]
    assert got == [waiting, later]


def test_a_job_that_is_given_back_makes_room(db: Database) -> None:
    first, second = (limited(db, Limits(running_jobs=1)) for _ in range(2))
    assert taken(db) is not None
    assert taken(db) is None
    give_back(db, Fence(first, 1), cause="worker stopping", lost=False, max_losses=3)
    again = taken(db)
    assert again is not None
    assert (again.job_id, again.attempt) == (first, 2)
    assert state_of(db, second)["status"] == "queued"


def test_many_claimers_at_once_keep_the_limit(database_url: str) -> None:
    """Each with connections of its own, as workers have: a rival's claim is not visible before it commits."""
    pools = [open_database(database_url, pool_size=2) for _ in range(6)]
    for _ in range(8):
        limited(pools[0], TWO)
    others = [create_job(pools[0], small_spec(), owner="bob").job_id for _ in range(4)]

    def all_i_can_get(pool: Database) -> list[str]:
        got = []
        while found := taken(pool):
            assert found.attempt == 1
            got.append(found.job_id)
        return got

    try:
        with ThreadPoolExecutor(6) as threads:
            got = [one for some in threads.map(all_i_can_get, pools) for one in some]
        assert set(others) < set(got)
        assert len(got) == len(others) + 2
        assert statuses(pools[0]).count("running") == len(got)
    finally:
        for pool in pools:
            pool.close()


def test_the_queue_of_an_owner_is_as_long_as_allowed(db: Database) -> None:
    most = Limits(queued_jobs=2)
    first = limited(db, most)
    promise = Idempotency("k", "digest")
    second = create_job(db, small_spec(), owner=OWNER, limits=most, idempotency=promise)
    with pytest.raises(QuotaExceeded) as refused:
        limited(db, most)
    assert refused.value.extra == {"limit": "queued_jobs", "allowed": 2, "used": 2}
    again = create_job(db, small_spec(), owner=OWNER, limits=most, idempotency=promise)
    assert (again.job_id, again.created) == (second.job_id, False), "a promise that was given is kept"
    with pytest.raises(QuotaExceeded):
        create_job(db, small_spec(), owner=OWNER, limits=most, idempotency=Idempotency("new", "digest"))
    limited(db, most, owner="bob")
    request_cancel(db, OWNER, first)
    late = create_job(db, small_spec(), owner=OWNER, limits=most, idempotency=Idempotency("new", "digest"))
    assert late.created, "the refusal has left no promise behind"
    with db.read() as connection:
        assert len(connection.execute(select(job.c.id).where(job.c.owner == OWNER)).all()) == 3


def test_many_submits_at_once_keep_the_limit(db: Database) -> None:
    def one(_: int) -> bool:
        try:
            limited(db, Limits(queued_jobs=5))
        except QuotaExceeded:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(one, range(16))) == 5
    assert statuses(db) == ["queued"] * 5


AHEAD = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
INSERT INTO job (id, owner, kind, spec, created_at)
SELECT 'job_' || printf('%026d', i), 'bob', 'train', (SELECT spec FROM job LIMIT 1), 0.0 FROM n
"""
PLACES = """
INSERT INTO job_state
(job_id, status, desired, needs, attempt, losses, failures, rank, version, progress, owner, most_running)
SELECT id, 'queued', 'run', 'any', 0, 0, 0, :rank, 1, '{}', 'bob', 5 FROM job WHERE owner = 'bob'
"""


def test_nobody_starves_behind_a_hundred_thousand_urgent_jobs(sqlite_url: str) -> None:
    """Between the priorities 100 and -100 lie 200 points of a minute each: 12 000 s, whatever arrives.

    All hundred thousand are most urgent, and came a little more, then a little less than that after the patient one.
    """
    database = open_database(sqlite_url)
    patient = submitted(database, priority=-100)
    queued_at = state_of(database, patient)["rank"] - 6000.0
    with database.write() as connection:
        connection.execute(text(AHEAD))
        connection.execute(text(PLACES), {"rank": queued_at + 12_010.0 - 6000.0})
    found = taken(database)
    assert found is not None
    assert found.job_id == patient
    set_state(database, patient, status="queued")
    with database.write() as connection:
        connection.execute(text("UPDATE job_state SET rank = rank - 20.0 WHERE owner = 'bob'"))
    found = taken(database)
    assert found is not None
    assert found.job_id != patient
    database.close()


def test_rows_of_the_release_before_have_no_limit(db: Database) -> None:
    ids = [limited(db, Limits(running_jobs=1)) for _ in range(2)]
    with db.write() as connection:
        connection.execute(update(job_state).values(owner=None, project=None, most_running=None))
    assert sorted(found.job_id for _ in ids if (found := taken(db))) == ids


def test_the_last_use_is_written_once_a_minute(db: Database) -> None:
    key, text = create_key(db, owner=OWNER, name="k")
    assert re.fullmatch(r"key_[0-9a-z]{26}", key.id)
    assert text.startswith(f"{key.prefix}_")
    record_key_use(db, key.id)
    first = find_key(db, key.id)
    assert first is not None
    assert first.last_used_at is not None
    record_key_use(db, key.id)
    assert [one.last_used_at for one in list_keys(db, OWNER)] == [first.last_used_at]
