"""The queue with light jobs in it: who claims them, what counts, and their places."""

from typing import Any

from core.db.session import Database
from core.jobs.health.workers import SlotUsage, WorkerReport, report_worker
from core.jobs.kinds import PREPARE
from core.jobs.queries import get_job_view
from core.jobs.queue.claim import anything_waiting
from core.jobs.queue.estimates import list_queued_jobs
from core.jobs.queue.rank import count_ahead
from core.jobs.queue.submit import SubmitContext, create_job, submit_as
from core.recipe.prepare import PrepareSpec
from core.settings import Limits
from tests.support.jobs import OWNER, small_spec, submitted, taken
from worker.attempt import needs_served

SPEC = PrepareSpec(dataset="ds_" + "0" * 26)


def light(db: Database, **limits: Any) -> str:
    return submit_as(PREPARE, db, SPEC, SubmitContext(OWNER, Limits(**limits), 60.0)).job_id


def test_it_is_claimed_for_the_lane_alone(db: Database) -> None:
    job_id = light(db)
    assert taken(db) is None
    assert not anything_waiting(db, needs_served(("cpu", "gpu")))
    assert anything_waiting(db, needs_served(("light",)))
    found = taken(db, needs=("light",))
    assert found is not None
    assert (found.job_id, found.kind, found.plan.device) == (job_id, "prepare", "cpu")
    assert get_job_view(db, OWNER, job_id).needs == "light"  # its plan is exact, and still it stays here


def test_it_counts_in_no_limit_of_running_jobs(db: Database) -> None:
    """Neither do trainings keep it waiting, nor the other way round."""
    create_job(db, small_spec(), owner=OWNER, limits=Limits(running_jobs=1))
    create_job(db, small_spec(), owner=OWNER, limits=Limits(running_jobs=1))
    light(db, running_jobs=1)
    light(db, running_jobs=1)
    assert taken(db) is not None
    assert taken(db) is None
    assert taken(db, needs=("light",)) is not None
    assert taken(db, needs=("light",)) is not None


def test_a_training_starts_beside_a_light_job(db: Database) -> None:
    light(db, running_jobs=1)
    assert taken(db, needs=("light",)) is not None
    create_job(db, small_spec(), owner=OWNER, limits=Limits(running_jobs=1))
    assert taken(db) is not None


def test_places_count_light_jobs_among_themselves(db: Database) -> None:
    report_worker(db, WorkerReport("host:1", {"cpu": SlotUsage(1, 0), "light": SlotUsage(1, 0)}))
    training, one, other, two = submitted(db), light(db), submitted(db), light(db)
    with db.read() as connection:
        assert count_ahead(connection, [training, one, other, two]) == {training: 0, one: 0, other: 1, two: 1}
    slots = {"cpu": SlotUsage(1, 0), "light": SlotUsage(1, 0)}
    waiting, total = list_queued_jobs(db, OWNER, slots)
    assert total == 4
    assert {each.job_id: (each.needs, each.ahead) for each in waiting} == {
        training: ("any", 0),
        one: ("light", 0),
        other: ("any", 1),
        two: ("light", 1),
    }
