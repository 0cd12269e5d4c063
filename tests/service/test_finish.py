"""The end of an attempt: once, whole, and where the owner and the budgets say."""

from typing import Any

import pytest

from core.db.session import Database
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.attempt.heartbeat import record_heartbeat, report_start
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.metrics.chunks import read_series
from core.jobs.queries import get_job_view, is_over
from core.jobs.verbs import request_cancel
from core.lifecycle import Desired, Status
from tests.support.jobs import LEASE, OWNER, chunk, new_checkpoint, running, set_state, state_of, taken

DONE = TerminalState(
    Status.SUCCEEDED,
    "completed",
    results={"base": {"test": {"accuracy": 0.9}}},
    progress={"step": 12, "steps": 12},
)


def test_finishing_writes_everything_at_once(db: Database) -> None:
    fence = running(db)
    finish_job(db, fence, DONE, [chunk("lr", 0, 12)])
    view = get_job_view(db, OWNER, fence.job_id)
    assert (view.status, view.stop_reason, view.error) == ("succeeded", "completed", None)
    assert view.results == {"base": {"test": {"accuracy": 0.9}}}
    assert view.progress == {"step": 12, "steps": 12}
    assert view.finished_at is not None
    assert is_over(view)
    assert read_series(db, fence.job_id)["lr"].steps == list(range(12))
    assert state_of(db, fence.job_id)["lease_until"] is None


def test_finishing_twice_is_the_same(db: Database) -> None:
    """The answer to the first COMMIT was lost; the supervisor tries again."""
    fence = running(db)
    finish_job(db, fence, DONE)
    before = get_job_view(db, OWNER, fence.job_id)
    finish_job(db, fence, DONE)
    assert get_job_view(db, OWNER, fence.job_id) == before
    with pytest.raises(Fenced):
        finish_job(db, fence, TerminalState(Status.FAILED))


def test_a_failure_keeps_its_reason(db: Database) -> None:
    fence = running(db)
    error = {"code": "diverged", "message": "the loss is NaN", "remedy": "lower optimizer.lr"}
    finish_job(db, fence, TerminalState(Status.FAILED, "non_finite", error, progress={"loss": float("nan")}))
    view = get_job_view(db, OWNER, fence.job_id)
    assert (view.status, view.stop_reason, view.error) == ("failed", "non_finite", error)
    assert view.progress == {"loss": "NaN"}
    assert view.status_detail == "the loss is NaN"


def test_an_unfinished_status_is_no_ending(db: Database) -> None:
    fence = running(db)
    with pytest.raises(Exception, match="running -> running"):
        finish_job(db, fence, TerminalState(Status.RUNNING))


@pytest.mark.parametrize(
    ("desired", "goes_to"),
    [("run", Status.QUEUED), ("pause", Status.PAUSED), ("cancel", Status.CANCELLED)],
)
def test_giving_back_follows_the_owners_wish(db: Database, desired: str, goes_to: Status) -> None:
    fence = running(db)
    set_state(db, fence.job_id, desired=desired, published_at=1.0)
    assert give_back(db, fence, cause="worker stopping", lost=False, max_losses=3) is goes_to
    state = state_of(db, fence.job_id)
    assert (state["status"], state["losses"], state["failures"]) == (goes_to, 0, 0)
    assert (state["lease_until"], state["worker"]) == (None, None)
    if goes_to is Status.QUEUED:
        assert state["published_at"] is None
    if goes_to is Status.CANCELLED:
        assert get_job_view(db, OWNER, fence.job_id).stop_reason == "cancelled"


def test_who_is_given_back_stands_where_its_checkpoint_stands(db: Database) -> None:
    """What a beat told before may be a second old; without a word about it, that stays."""
    fence = running(db)
    record_heartbeat(db, fence, lease_seconds=LEASE, progress={"step": 7, "steps": 10})
    give_back(db, fence, cause="pause", lost=False, max_losses=3, progress={"step": 9, "steps": 10})
    assert state_of(db, fence.job_id)["progress"] == {"step": 9, "steps": 10}
    give_back(db, again(db), cause="killed", lost=True, max_losses=3)
    assert state_of(db, fence.job_id)["progress"] == {"step": 9, "steps": 10}


def test_three_losses_without_a_checkpoint_fail_the_job(db: Database) -> None:
    fence = running(db)
    assert give_back(db, fence, cause="the runner was killed", lost=True, max_losses=3) is Status.QUEUED
    fence = again(db)
    assert give_back(db, fence, cause="the runner was killed", lost=True, max_losses=3) is Status.QUEUED
    fence = again(db)
    assert give_back(db, fence, cause="the runner was killed", lost=True, max_losses=3) is Status.FAILED
    view = get_job_view(db, OWNER, fence.job_id)
    assert view.error is not None
    assert view.error["code"] == "worker_lost"
    assert [moment.status for moment in view.timeline] == [
        *("queued", "running") * 3,
        "failed",
    ]


def test_what_is_said_of_a_loss_is_true(db: Database) -> None:
    """A job that goes on from a checkpoint is not one without any."""
    fence = running(db)
    give_back(db, fence, cause="killed", lost=True, max_losses=9)
    said = [get_job_view(db, OWNER, fence.job_id).status_detail]
    fence = again(db)
    record_checkpoint(db, fence, new_checkpoint(fence, 5), [], resumable=True)
    for _ in range(2):
        give_back(db, fence, cause="killed", lost=True, max_losses=9)
        said.append(get_job_view(db, OWNER, fence.job_id).status_detail)
        fence = again(db)
    assert said == [
        "killed (1 of 9 without a checkpoint)",
        "killed (1 of 9 since its last checkpoint)",
        "killed (2 of 9 since its last checkpoint)",
    ]


def test_a_stall_has_its_own_code(db: Database) -> None:
    fence = running(db)
    give_back(db, fence, cause="stalled", lost=True, max_losses=1)
    view = get_job_view(db, OWNER, fence.job_id)
    assert view.error is not None
    assert view.error["code"] == "stalled"


def test_a_checkpoint_renews_the_budget_of_losses(db: Database) -> None:
    fence = running(db)
    for step in (5, 10, 15):
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
        assert give_back(db, fence, cause="killed", lost=True, max_losses=2) is Status.QUEUED
        fence = again(db)
    record_checkpoint(db, fence, new_checkpoint(fence, 15, kind="swa"), [], resumable=False)
    assert give_back(db, fence, cause="killed", lost=True, max_losses=2) is Status.FAILED


def test_failures_of_the_job_do_not_use_up_the_budget_of_losses(db: Database) -> None:
    fence = running(db)
    for _ in range(4):
        assert give_back(db, fence, cause="retry", lost=False, max_losses=1, failed=True) is Status.QUEUED
        fence = again(db)
    state = state_of(db, fence.job_id)
    assert (state["failures"], state["losses"]) == (4, 0)


def test_stopping_a_worker_costs_the_job_nothing(db: Database) -> None:
    fence = running(db)
    for _ in range(5):
        assert give_back(db, fence, cause="worker stopping", lost=False, max_losses=1) is Status.QUEUED
        fence = again(db)
    assert state_of(db, fence.job_id)["losses"] == 0


def test_a_beat_extends_the_lease_and_tells_the_wish(db: Database) -> None:
    fence = running(db, lease=1.0)
    before = state_of(db, fence.job_id)
    assert record_heartbeat(db, fence, lease_seconds=LEASE) is Desired.RUN
    quiet = state_of(db, fence.job_id)
    assert quiet["lease_until"] - before["lease_until"] > 10.0
    assert quiet["version"] == before["version"]
    request_cancel(db, OWNER, fence.job_id)
    assert record_heartbeat(db, fence, lease_seconds=LEASE, progress={"step": 3}) is Desired.CANCEL
    view = get_job_view(db, OWNER, fence.job_id)
    assert (view.progress, view.status) == ({"step": 3}, "cancelling")
    assert view.version > before["version"]


def test_where_an_attempt_computes_can_be_read(db: Database) -> None:
    fence = running(db)
    environment = {"device": "cpu", "versions": {"torch": "2.13.0"}}
    report_start(db, fence, environment=environment, resume={"fidelity": "exact", "digest": "ab"})
    report_start(db, fence, environment=environment)
    view = get_job_view(db, OWNER, fence.job_id)
    assert view.environment == environment
    assert view.resume == {"fidelity": "exact", "digest": "ab"}


def test_a_job_that_was_approximate_once_stays_approximate(db: Database) -> None:
    """From a GPU to a CPU, on that CPU, and on one with other libraries: the last attempt is not all there was."""
    fence, environment = running(db), {"device": "cpu"}
    moved, newer = "kind: cuda before, cpu now", "torch: 2.12 before, 2.13 now"

    def resumed(digest: str, *reasons: str) -> dict[str, Any] | None:
        fidelity = "approximate" if reasons else "exact"
        resume = {"fidelity": fidelity, "reasons": list(reasons), "digest": digest}
        report_start(db, fence, environment=environment, resume=resume)
        return get_job_view(db, OWNER, fence.job_id).resume

    assert resumed("aa") == {"fidelity": "exact", "reasons": [], "digest": "aa"}
    assert resumed("bb", moved) == {"fidelity": "approximate", "reasons": [moved], "digest": "bb"}
    assert resumed("cc") == {"fidelity": "approximate", "reasons": [moved], "digest": "cc"}
    assert resumed("dd", newer, moved) == {"fidelity": "approximate", "reasons": [moved, newer], "digest": "dd"}


def again(db: Database) -> Fence:
    found = taken(db)
    assert found is not None
    return Fence(found.job_id, found.attempt)
