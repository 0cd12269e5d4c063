"""Jobs that need plug-ins: who may claim them, and what is said while nobody can."""

import pytest
from sqlalchemy import delete, func, select, text

from core.db.session import Database
from core.db.tables import job, job_plugin, worker
from core.errors import Conflict
from core.jobs.branch import create_fork, create_retry
from core.jobs.changes import mark_job_deleted
from core.jobs.events.record import list_events
from core.jobs.health.workers import (
    SlotUsage,
    WorkerReport,
    list_worker_views,
    live_workers,
    report_worker,
    total_slots,
)
from core.jobs.plugins import store_plugins
from core.jobs.queries import get_job_view
from core.jobs.queue.claim import claim_job, count_waiting
from core.jobs.queue.estimates import forecast_queue, list_queued_jobs
from core.jobs.queue.submit import SubmitContext, require_plugins
from core.jobs.verbs import request_cancel
from core.recipe.plugins import Plugin
from core.settings import Limits
from tests.support.jobs import LEASE, OWNER, plan_of, submitted

A, B = Plugin("basin-a", "1.2", "ab", ()), Plugin("basin-b", "0.1", "cd", ())
ME = SubmitContext(OWNER, Limits(), 60.0)


def needing(db: Database, *plugins: Plugin) -> str:
    """A queued job, as one is stored where these plug-ins are installed."""
    job_id = submitted(db)
    with db.write() as connection:
        store_plugins(connection, job_id, plugins)
    return job_id


def claimed(db: Database, *plugins: str) -> str | None:
    found = claim_job(
        db, worker="w", needs=("cpu", "any"), plan_for=plan_of, lease_seconds=LEASE, plugins=frozenset(plugins)
    )
    return found.job_id if found else None


def test_a_worker_takes_what_it_has_the_plugins_for_in_the_order_of_the_queue(db: Database) -> None:
    both, one, none = needing(db, A, B), needing(db, A), needing(db)
    assert [count_waiting(db, ("cpu", "any"), 9, have) for have in ((), ("basin-a",), ("basin-a", "basin-b"))] == [
        1,
        2,
        3,
    ]
    assert claimed(db) == none
    assert claimed(db) is None
    assert claimed(db, "basin-b", "basin-c") is None
    assert claimed(db, "basin-a") == one
    assert claimed(db, "basin-a") is None
    assert claimed(db, "basin-b", "basin-a") == both


def test_the_queue_says_which_plugin_no_worker_has(db: Database) -> None:
    job_id, plain = needing(db, A, B), needing(db)

    def reasons() -> dict[str, tuple[str, str]]:
        live = live_workers(list_worker_views(db, OWNER), 12.0)
        found, _ = list_queued_jobs(db, OWNER, total_slots(live), 10, live)
        return {each.job_id: (each.reason.code, each.reason.message) for each in found}

    assert {code for code, _ in reasons().values()} == {"no_worker"}
    report_worker(db, WorkerReport("one", {"cpu": SlotUsage(2, 2)}, plugins={"basin-a": "1.2"}))
    report_worker(db, WorkerReport("two", {"cpu": SlotUsage(1, 1)}, plugins={"basin-b": "0.1"}))
    missing = "No worker has the plug-ins basin-a 1.2 and basin-b 0.1; install them where workers run."
    assert reasons()[job_id] == ("no_plugin", missing)
    assert reasons()[plain][0] == "starting"
    assert forecast_queue(db, OWNER, 12.0).missing_plugin(get_job_view(db, OWNER, job_id).plugins) == missing
    report_worker(db, WorkerReport("two", {"cpu": SlotUsage(1, 0)}, plugins={"basin-b": "0.1", "basin-a": "9.9"}))
    assert reasons()[job_id][0] == "slots_busy"  # of the one worker that could take it, the only slot is busy
    report_worker(db, WorkerReport("two", {"cpu": SlotUsage(1, 1)}, plugins={"basin-b": "0.1", "basin-a": "9.9"}))
    assert reasons()[job_id][0] == "starting"


def test_a_submit_warns_once_where_workers_lack_the_plugin(db: Database) -> None:
    def warnings() -> list[str]:
        job_id = submitted(db)
        with db.write() as connection:
            require_plugins(connection, job_id, (A,), 12.0)
        return [each.data["message"] for each in list_events(db, OWNER, job_id, types=("warning",))]

    assert warnings() == []  # no worker is there that could lack it
    report_worker(db, WorkerReport("one", {"cpu": SlotUsage(2, 2)}))
    assert warnings() == ["No worker has the plug-in basin-a 1.2; install it where workers run."]
    report_worker(db, WorkerReport("one", {"cpu": SlotUsage(2, 2)}, plugins={"basin-a": "1.1"}))
    assert warnings() == []


def test_a_worker_of_the_release_before_has_none(db: Database) -> None:
    """Its row does not name the column."""
    with db.write() as connection:
        connection.execute(
            text(
                "INSERT INTO worker (id, host, pid, slots, release, started_at, seen_at)"
                " VALUES ('old', 'h', 1, '{\"cpu\": {\"slots\": 1, \"free\": 1}}', '0', 0, 0)"
            )
        )
        assert connection.execute(select(worker.c.plugins)).scalar_one() is None
    (view,) = list_worker_views(db, OWNER)
    assert view.plugins == frozenset()


@pytest.fixture
def gone(db: Database) -> str:
    """A cancelled job whose spec names an optimizer that is not installed here."""
    job_id = needing(db, A)
    with db.write() as connection:
        stored = connection.execute(text("SELECT spec FROM job")).scalar_one().replace('"sgd"', '"of_basin_a"')
        connection.execute(text("UPDATE job SET spec = :spec"), {"spec": stored})
    request_cancel(db, OWNER, job_id)
    return job_id


def test_a_job_whose_plugin_is_gone_is_read_and_deleted_and_says_why_it_is_not_run_again(
    db: Database, gone: str
) -> None:
    view = get_job_view(db, OWNER, gone)
    assert (view.status, view.spec["optimizer"]["name"], view.plugins) == (
        "cancelled",
        "of_basin_a",
        {"basin-a": "1.2"},
    )
    message = "The job needs the plug-in basin-a 1.2, which is not installed where this api runs."
    with pytest.raises(Conflict) as refused:
        create_retry(db, gone, ME)
    assert (refused.value.message, refused.value.extra) == (message, {"missing_plugins": ["basin-a 1.2"]})
    with pytest.raises(Conflict, match="basin-a"):
        create_fork(db, gone, ME, changes={"epochs": 9})
    mark_job_deleted(db, OWNER, gone)
    with db.write() as connection:
        connection.execute(delete(job).where(job.c.id == gone))  # as CARE does it later
        assert connection.execute(select(func.count()).select_from(job_plugin)).scalar_one() == 0
