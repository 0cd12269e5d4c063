"""Cancel, and what owners read."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from core.db.session import Database
from core.errors import Conflict, InvalidRequest, NotFound
from core.jobs.attempt.fence import Fence, fenced_transaction
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.events.record import list_events
from core.jobs.queries import get_job_view, job_version, list_job_views
from core.jobs.queue.submit import create_job
from core.jobs.search import JobSearch
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from tests.support.jobs import OWNER, running, set_state, small_spec, state_of, submitted, taken


def test_a_running_job_is_asked_and_its_timeline_tells_it(db: Database) -> None:
    fence = running(db)
    request_cancel(db, OWNER, fence.job_id)
    finish_job(db, fence, TerminalState(Status.CANCELLED, "cancelled"))
    assert [moment.status for moment in get_job_view(db, OWNER, fence.job_id).timeline] == [
        *("queued", "running", "cancelling", "cancelled"),
    ]


def test_foreign_and_unknown_jobs_do_not_exist(db: Database) -> None:
    job_id = submitted(db)
    for owner, asked in (("bob", job_id), (OWNER, "job_00000000000000000000000000")):
        for call in (request_cancel, get_job_view, job_version):
            with pytest.raises(NotFound):
                call(db, owner, asked)
        assert list_events(db, owner, asked) == []
    assert get_job_view(db, OWNER, job_id).status == "queued"


def test_cancel_and_finish_at_once_end_in_one_terminal_state(db: Database) -> None:
    for _ in range(10):
        fence = running(db)
        with ThreadPoolExecutor(2) as threads:
            ended = threads.submit(finish_job, db, fence, TerminalState(Status.SUCCEEDED, "completed"))
            asked = threads.submit(request_cancel, db, OWNER, fence.job_id)
            ended.result()
            refused = asked.exception()
        assert refused is None or isinstance(refused, Conflict)
        assert state_of(db, fence.job_id)["status"] == "succeeded"


def test_the_place_in_the_queue(db: Database) -> None:
    ids = [submitted(db) for _ in range(3)]
    for rank, job_id in enumerate(ids):
        set_state(db, job_id, rank=float(rank))
    places = [get_job_view(db, OWNER, job_id).queue for job_id in ids]
    assert [(place.position, place.ahead) for place in places if place] == [(1, 0), (2, 1), (3, 2)]
    version = job_version(db, OWNER, ids[2])
    taken(db)
    last = get_job_view(db, OWNER, ids[2])
    assert last.queue is not None
    assert last.queue.ahead == 1
    assert last.version == version == job_version(db, OWNER, ids[2])


def test_pages_of_jobs(db: Database) -> None:
    ids = [submitted(db) for _ in range(5)]
    create_job(db, small_spec(), owner="bob")
    first, more = list_job_views(db, OWNER, limit=2)
    assert ([view.id for view in first], more) == ([ids[4], ids[3]], True)
    second, more = list_job_views(db, OWNER, after=ids[3], limit=3)
    assert ([view.id for view in second], more) == ([ids[2], ids[1], ids[0]], False)
    oldest, more = list_job_views(db, OWNER, after=ids[0], limit=2, order="asc")
    assert ([view.id for view in oldest], more) == ([ids[1], ids[2]], True)
    assert list_job_views(db, OWNER, after="job_0", limit=2) == ([], False)


def test_jobs_by_status(db: Database) -> None:
    done = running(db)
    finish_job(db, done, TerminalState(Status.SUCCEEDED))
    stopping = running(db)
    request_cancel(db, OWNER, stopping.job_id)
    paused = running(db)
    set_state(db, paused.job_id, desired="pause")
    assert [view.id for view in list_job_views(db, OWNER, JobSearch(["pausing"]))[0]] == [paused.job_id]
    give_back(db, paused, cause="as its owner asked", lost=False, max_losses=3)
    queued = submitted(db)
    found = {
        status: [view.id for view in list_job_views(db, OWNER, JobSearch([status]))[0]]
        for status in ("queued", "running", "paused", "pausing", "cancelling", "succeeded", "failed", "cancelled")
    }
    assert found == {
        "queued": [queued],
        "running": [],
        "paused": [paused.job_id],
        "pausing": [],
        "cancelling": [stopping.job_id],
        "succeeded": [done.job_id],
        "failed": [],
        "cancelled": [],
    }
    with pytest.raises(InvalidRequest, match="there are cancelled, cancelling"):
        list_job_views(db, OWNER, JobSearch(["sleeping"]))


def test_events_can_be_read_from_any_place(db: Database) -> None:
    fence = running(db)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    events = list_events(db, OWNER, fence.job_id)
    assert [(event.type, event.data["status"]) for event in events] == [
        ("status", "queued"),
        ("status", "running"),
        ("status", "succeeded"),
    ]
    assert list_events(db, OWNER, fence.job_id, after=events[0].id) == events[1:]
    assert list_events(db, OWNER, fence.job_id, limit=1) == events[:1]
    assert [moment.at for moment in get_job_view(db, OWNER, fence.job_id).timeline] == [event.at for event in events]


def test_a_wish_that_comes_while_the_fence_is_held_waits_for_it(db: Database) -> None:
    fence = running(db)
    with ThreadPoolExecutor(1) as threads:
        with fenced_transaction(db, fence, exclusive=True):
            asked = threads.submit(request_cancel, db, OWNER, fence.job_id)
        asked.result(10)
    assert state_of(db, fence.job_id)["desired"] == "cancel"
    assert Fence(fence.job_id, 1) == fence
