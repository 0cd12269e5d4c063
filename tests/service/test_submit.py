"""Submitting: the job is there when the call returns, once, whatever the client repeats."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from core.db.session import Database
from core.db.tables import idempotency, job
from core.errors import IdempotencyMismatch
from core.jobs.queries import get_job_view
from core.jobs.queue.submit import Idempotency, create_job
from core.recipe.spec import JobSpec
from tests.support.jobs import OWNER, plan_of, small_spec, state_of, submitted, taken


def jobs(db: Database) -> int:
    with db.read() as connection:
        return connection.execute(select(func.count()).select_from(job)).scalar_one()


def test_a_submitted_job_is_queued_with_its_resolved_spec(db: Database) -> None:
    spec = small_spec(name="first", priority=5)
    made = create_job(db, spec, owner=OWNER)
    assert made.created
    view = get_job_view(db, OWNER, made.job_id)
    assert view.spec == json.loads(spec.model_dump_json())
    assert JobSpec.model_validate_json(json.dumps(view.spec)) == spec
    assert (view.status, view.name, view.attempt, view.progress) == ("queued", "first", 0, {})
    assert [moment.status for moment in view.timeline] == ["queued"]
    state = state_of(db, made.job_id)
    assert (state["published_at"], state["lease_until"], state["version"]) == (None, None, 1)


@pytest.mark.parametrize(("device", "needs"), [("auto", "any"), ("cpu", "cpu"), ("gpu", "gpu")])
def test_needs_follow_the_asked_device(db: Database, device: str, needs: str) -> None:
    made = create_job(db, small_spec(resources={"device": device}), owner=OWNER)
    assert made.needs == needs == state_of(db, made.job_id)["needs"]


def test_priority_is_worth_seconds_of_waiting(db: Database) -> None:
    plain, urgent = submitted(db), submitted(db, priority=2)
    gap = state_of(db, plain)["rank"] - state_of(db, urgent)["rank"]
    assert gap == pytest.approx(120.0, abs=5.0)


def test_the_same_key_and_body_give_the_first_job(db: Database) -> None:
    key = Idempotency("once", "digest-a")
    first = create_job(db, small_spec(), owner=OWNER, idempotency=key)
    again = create_job(db, small_spec(), owner=OWNER, idempotency=key)
    assert (first.created, again.created) == (True, False)
    assert first.job_id == again.job_id
    assert jobs(db) == 1


def test_the_same_key_with_another_body_is_refused_and_stores_nothing(db: Database) -> None:
    create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency("once", "digest-a"))
    with pytest.raises(IdempotencyMismatch):
        create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency("once", "digest-b"))
    assert jobs(db) == 1


def test_keys_belong_to_their_owner(db: Database) -> None:
    key = Idempotency("once", "digest-a")
    mine = create_job(db, small_spec(), owner=OWNER, idempotency=key)
    theirs = create_job(db, small_spec(), owner="bob", idempotency=key)
    assert theirs.created
    assert mine.job_id != theirs.job_id


def test_fifty_equal_posts_at_once_make_one_job(db: Database) -> None:
    spec, key = small_spec(), Idempotency("once", "digest-a")
    with ThreadPoolExecutor(50) as threads:
        made = list(threads.map(lambda _: create_job(db, spec, owner=OWNER, idempotency=key), range(50)))
    assert len({one.job_id for one in made}) == 1
    assert sum(one.created for one in made) == 1
    assert jobs(db) == 1
    with db.read() as connection:
        assert connection.execute(select(func.count()).select_from(idempotency)).scalar_one() == 1


def test_odd_but_legal_text_survives_the_database(db: Database) -> None:
    text = 'naïve "quotes" \\ 𝛽 日本 %s ; DROP TABLE job'
    made = create_job(db, small_spec(name=text, metadata={"k": text}), owner=OWNER)
    view = get_job_view(db, OWNER, made.job_id)
    assert (view.name, view.spec["metadata"]) == (text, {"k": text})
    found = taken(db)
    assert found is not None
    assert found.spec.name == text
    assert found.plan == plan_of(found.spec)
