"""Retry and fork in the database: who may, what the child has of its parent, and what its parent must keep for it."""

from typing import Any

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import checkpoint
from core.errors import Conflict, InvalidSpec, NotFound, QuotaExceeded
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.branch import create_fork, create_retry
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import find_checkpoint, list_checkpoint_rows, mark_corrupt, record_checkpoint
from core.jobs.metrics.chunks import read_series
from core.jobs.queries import JobView, get_job_view
from core.jobs.queue.submit import Idempotency, SubmitContext
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from core.settings import Limits
from tests.support.jobs import OWNER, chunk, new_checkpoint, running, submitted, taken

ME = SubmitContext(OWNER, Limits(), 60.0)
SPARSE = {"checkpoints": {"every": "4st", "keep_last": 2}}


def trained(db: Database, upto: int = 8, **changes: Any) -> Fence:
    """A running job with a point for each step and a checkpoint every four of them, and points behind the last."""
    fence = running(db, **changes)
    for step in range(4, upto + 1, 4):
        points = [chunk("train.loss", step - 4, 4, after_step=step - 4)]
        record_checkpoint(db, fence, new_checkpoint(fence, step), points, resumable=True)
    return fence


def ended(db: Database, status: Status = Status.FAILED, **changes: Any) -> Fence:
    fence = trained(db, **changes)
    finish_job(db, fence, TerminalState(status), [chunk("train.loss", 8, 2, after_step=8)])
    return fence


def view(db: Database, job_id: str) -> JobView:
    return get_job_view(db, OWNER, job_id)


def statuses(db: Database, job_id: str) -> dict[int, str]:
    with db.read() as connection:
        query = select(checkpoint.c.step, checkpoint.c.status).where(checkpoint.c.job_id == job_id)
        return {row.step: row.status for row in connection.execute(query)}


def test_a_retry_goes_on_where_its_parent_ended(db: Database) -> None:
    parent = ended(db)
    made = create_retry(db, parent.job_id, ME)
    child = view(db, made.job_id)
    assert (child.status, child.parent_id, child.parent_verb, child.parent_step) == (
        "queued",
        parent.job_id,
        "retry",
        8,
    )
    assert child.spec == view(db, parent.job_id).spec
    assert child.plan == view(db, parent.job_id).plan
    assert child.progress["step"] == 8
    assert view(db, parent.job_id).children == (made.job_id,)
    assert view(db, parent.job_id).status == "failed"
    claim = taken(db)
    assert claim is not None
    assert claim.checkpoint is not None
    assert (claim.job_id, claim.checkpoint.job_id, claim.checkpoint.step) == (made.job_id, parent.job_id, 8)
    assert (claim.anew, claim.is_fork) == ((), False)
    assert list(read_series(db, made.job_id)["train.loss"].steps) == list(range(8)), (
        "what came behind the checkpoint is not"
    )


def test_only_what_failed_or_was_cancelled_is_tried_again_and_once(db: Database) -> None:
    for fence in (running(db), ended(db, Status.SUCCEEDED)):
        with pytest.raises(Conflict) as refused:
            create_retry(db, fence.job_id, ME)
        assert refused.value.extra == {"current_status": view(db, fence.job_id).status}
    parent = submitted(db)
    request_cancel(db, OWNER, parent)
    first = create_retry(db, parent, ME)
    assert view(db, first.job_id).checkpoint_id is None, "it never ran: from the start"
    with pytest.raises(Conflict) as twice:
        create_retry(db, parent, ME)
    assert twice.value.extra == {"current_status": "cancelled", "retried_as": first.job_id}
    promise = Idempotency("key", "digest")
    second = create_retry(db, parent, ME, again=True, idempotency=promise)
    assert create_retry(db, parent, ME, idempotency=promise).job_id == second.job_id
    assert view(db, parent).children == (first.job_id, second.job_id)
    for owner in ("bob",):
        with pytest.raises(NotFound):
            create_retry(db, parent, SubmitContext(owner, Limits(), 60.0))


def test_a_fork_takes_another_ending(db: Database) -> None:
    parent = trained(db, upto=12, **SPARSE)
    changes = {"epochs": 5, "swa": {"start": "10st", "every": "1st"}, "name": "longer"}
    made = create_fork(db, parent.job_id, ME, changes=changes, at=8)
    child = view(db, made.job_id)
    assert (child.parent_verb, child.parent_step, child.name, child.spec["epochs"]) == ("fork", 8, "longer", 5)
    assert list(read_series(db, made.job_id)["train.loss"].steps) == list(range(8))
    assert len(read_series(db, parent.job_id)["train.loss"].steps) == 12
    claim = taken(db)
    assert claim is not None
    assert (claim.anew, claim.is_fork) == (("swa", "swag", "incumbent", "mark"), True)


@pytest.mark.parametrize("at", [5, "ckpt_00000000000000000000000000"])
def test_where_there_is_no_checkpoint_no_fork_begins(db: Database, at: int | str) -> None:
    parent = trained(db, upto=12, **SPARSE)
    with pytest.raises(InvalidSpec) as refused:
        create_fork(db, parent.job_id, ME, changes={}, at=at)
    assert [(one.pointer, one.hint) for one in refused.value.errors] == [("/at", "steps with a checkpoint: 12, 8")]
    with pytest.raises(Conflict):
        create_fork(db, submitted(db), ME, changes={})
    with pytest.raises(NotFound):
        create_fork(db, parent.job_id, SubmitContext("bob", Limits(), 60.0), changes={})


def test_limits_hold_for_children_too(db: Database) -> None:
    parent = ended(db)
    few = SubmitContext(OWNER, Limits(queued_jobs=2), 60.0)
    for _ in range(2):
        create_retry(db, parent.job_id, few, again=True)
    with pytest.raises(QuotaExceeded):
        create_retry(db, parent.job_id, few, again=True)
    assert len(view(db, parent.job_id).children) == 2


def test_a_checkpoint_that_a_child_needs_outlives_retention_and_its_parent(db: Database) -> None:
    """Until the child has one of its own, or has ended."""
    parent = trained(db, **SPARSE)
    made = create_fork(db, parent.job_id, ME, changes={}, at=4)
    for step in (12, 16):
        record_checkpoint(db, parent, new_checkpoint(parent, step), (), resumable=True)
    assert statuses(db, parent.job_id) == {4: "good", 8: "doomed", 12: "good", 16: "good"}
    finish_job(db, parent, TerminalState(Status.SUCCEEDED))
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, parent.job_id)
    assert refused.value.extra == {"current_status": "succeeded", "needed_by": made.job_id}
    claim = taken(db)
    assert claim is not None
    child = Fence(made.job_id, claim.attempt)
    record_checkpoint(db, child, new_checkpoint(child, 8), [chunk("train.loss", 4, 4, after_step=4)], resumable=True)
    mark_job_deleted(db, OWNER, parent.job_id)
    assert set(statuses(db, parent.job_id).values()) == {"doomed"}
    assert list(read_series(db, made.job_id)["train.loss"].steps) == list(range(8))
    assert view(db, made.job_id).parent_id == parent.job_id


def test_the_retry_of_a_fork_that_never_got_far_is_that_fork(db: Database) -> None:
    """It stands where the fork stood, with the same parts anew, and what it needs is kept all the same."""
    grandparent = ended(db, Status.SUCCEEDED)
    changes = {"epochs": 5, "swa": {"start": "10st", "every": "1st"}}
    parent = create_fork(db, grandparent.job_id, ME, changes=changes, at=4)
    request_cancel(db, OWNER, parent.job_id)
    made = create_retry(db, parent.job_id, ME)
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, grandparent.job_id)
    assert refused.value.extra["needed_by"] == made.job_id
    claim = taken(db)
    assert claim is not None
    assert claim.checkpoint is not None
    assert (claim.job_id, claim.checkpoint.job_id, claim.checkpoint.step) == (made.job_id, grandparent.job_id, 4)
    assert (claim.anew, claim.is_fork) == (("swa", "swag", "incumbent", "mark"), True)
    assert list(read_series(db, made.job_id)["train.loss"].steps) == list(range(4))


def test_a_fork_whose_past_is_gone_is_not_tried_again(db: Database) -> None:
    grandparent = ended(db, Status.SUCCEEDED)
    parent = create_fork(db, grandparent.job_id, ME, changes={"epochs": 5})
    request_cancel(db, OWNER, parent.job_id)
    mark_job_deleted(db, OWNER, grandparent.job_id)
    with pytest.raises(Conflict, match="no longer exists"):
        create_retry(db, parent.job_id, ME)


def test_a_damaged_origin_is_replaced_for_a_retry_and_not_for_a_fork(db: Database) -> None:
    parent = ended(db)
    (older, newest) = list_checkpoint_rows(db, OWNER, parent.job_id)
    for begin, expected in ((create_retry, older.id), (create_fork, None)):
        with db.write() as connection:
            connection.execute(checkpoint.update().where(checkpoint.c.id == newest.id).values(status="good"))
        options: dict[str, Any] = {"changes": {}} if begin is create_fork else {}
        made = begin(db, parent.job_id, ME, **options)
        claim = taken(db)
        assert claim is not None
        found = mark_corrupt(db, Fence(made.job_id, claim.attempt), newest.id)
        assert (found.id if found else None) == expected
        with db.read() as connection:
            marked = find_checkpoint(connection, newest.id)
        assert marked is not None
        assert marked.status == "corrupt"
        steps = list(read_series(db, made.job_id)["train.loss"].steps) if expected else []
        assert steps == (list(range(4)) if expected else [])
