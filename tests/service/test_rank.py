"""Places in the queue: counted among the jobs that the same slots can take, and a word for those that no slot can."""

from typing import Any

import pytest

from core.db.session import Database
from core.jobs.events.record import list_events
from core.jobs.health.workers import (
    SlotState,
    SlotUsage,
    WorkerReport,
    list_worker_views,
    live_workers,
    report_worker,
    total_slots,
)
from core.jobs.queries import get_job_view
from core.jobs.queue.estimates import list_queued_jobs
from core.jobs.queue.submit import create_job
from tests.support.jobs import OWNER, set_state, small_spec, submitted, taken

NEEDS = ("gpu", "any", "cpu", "gpu", "any", "cpu")
REASONS = ("timeout", "memory_in_use", "timeout")
ALL = {"cpu": SlotUsage(2, 0), "gpu": SlotUsage(1, 0)}


def queue_of(db: Database) -> list[str]:
    """One job for each of NEEDS, in this order."""
    ids = [submitted(db) for _ in NEEDS]
    for rank, (job_id, needs) in enumerate(zip(ids, NEEDS, strict=True)):
        set_state(db, job_id, rank=float(rank), needs=needs)
    return ids


@pytest.mark.parametrize(
    ("slots", "ahead"),
    [
        ({"cpu": SlotUsage(2, 0)}, [0, 0, 1, 2, 2, 3]),
        ({"gpu": SlotUsage(1, 0)}, [0, 1, 1, 2, 3, 3]),
        (ALL, [0, 1, 1, 2, 4, 3]),
        ({}, [0, 1, 1, 2, 4, 3]),
    ],
    ids=["cpu", "gpu", "both", "none"],
)
def test_only_jobs_for_the_same_slots_are_ahead(db: Database, slots: dict[str, SlotUsage], ahead: list[int]) -> None:
    """By hand: before the fifth, which any slot can run, stand gpu, any, cpu, gpu; on cpu slots alone any and cpu."""
    ids = queue_of(db)
    if slots:
        report_worker(db, WorkerReport("here", slots))
    views = [get_job_view(db, OWNER, job_id) for job_id in ids]
    assert [view.queue.ahead for view in views if view.queue] == ahead
    waiting, total = list_queued_jobs(db, OWNER, total_slots(live_workers(list_worker_views(db, OWNER), 12.0)))
    assert total == len(ids)
    assert {one.job_id: one.ahead for one in waiting} == dict(zip(ids, ahead, strict=True))


def test_the_claim_takes_them_in_the_order_of_their_places(db: Database) -> None:
    ids = queue_of(db)
    report_worker(db, WorkerReport("here", {"cpu": SlotUsage(1, 1)}))
    first = [job_id for job_id in ids if (queue := get_job_view(db, OWNER, job_id).queue) and queue.ahead == 0]
    assert first == ids[:2]
    found = taken(db)
    assert found is not None
    assert found.job_id == ids[1]


def told(db: Database, device: str, **given: Any) -> list[str]:
    """The codes of the warnings of a new job."""
    spec = small_spec(resources={"device": device})
    done = create_job(db, spec, owner=OWNER, **given)
    return [event.data["code"] for event in list_events(db, OWNER, done.job_id, types=["warning"])]


def test_a_job_that_no_slot_can_take_comes_with_a_warning(db: Database) -> None:
    assert told(db, "gpu") == [], "no worker is there at all: one may be on its way"
    report_worker(db, WorkerReport("here", {"cpu": SlotUsage(1, 1)}))
    assert [told(db, device) for device in ("gpu", "cpu", "auto")] == [["no_slot"], [], []]
    report_worker(db, WorkerReport("there", {"gpu": SlotUsage(1, 0)}))
    assert told(db, "gpu") == []
    assert told(db, "gpu", lost_after=-1.0) == [], "silent ones do not count"


def why(db: Database, needs: str) -> tuple[str, str]:
    """The reason why a job that needs this waits."""
    job_id = submitted(db)
    set_state(db, job_id, needs=needs)
    waiting, _ = list_queued_jobs(db, OWNER, total_slots(live_workers(list_worker_views(db, OWNER), 12.0)))
    (found,) = (one.reason for one in waiting if one.job_id == job_id)
    return found.code, found.message


def test_slots_out_of_service_are_why_a_job_waits(db: Database) -> None:
    """A worker is there, and says what is wrong with its GPUs; "no worker" would send people the wrong way."""
    out = [SlotState("gpu", f"GPU-{n}", in_service=False, since=0.0, reason=why) for n, why in enumerate(REASONS)]
    report_worker(db, WorkerReport("gpus", {"gpu": SlotUsage(0, 0)}, tuple(out[:1])))
    assert why(db, "gpu") == ("no_slot", "The only GPU is out of service: timeout; see `basin workers`.")
    assert why(db, "any") == ("no_slot", "The only slot is out of service: timeout; see `basin workers`.")
    assert why(db, "cpu") == ("no_slot", "No worker has a cpu slot; there are gpu slots.")
    report_worker(db, WorkerReport("gpus", {"gpu": SlotUsage(0, 0)}, tuple(out)))
    assert why(db, "gpu") == (
        "no_slot",
        "All 3 GPUs are out of service: memory_in_use, timeout; see `basin workers`.",
    )
    report_worker(db, WorkerReport("more", {"gpu": SlotUsage(1, 0)}))
    assert why(db, "gpu")[0] == "slots_busy"
