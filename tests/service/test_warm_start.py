"""A job that begins with another one's weights: which checkpoint, whose, and how long it is kept for it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from core.db.session import Database
from core.errors import Conflict, InvalidSpec
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.branch import create_retry
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import list_checkpoint_rows, record_checkpoint
from core.jobs.queries import get_job_view
from core.jobs.queue.submit import SubmitContext, create_job
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from core.recipe.parse import parse_job
from core.settings import Limits
from tests.support.jobs import OWNER, new_checkpoint, running, small_spec, submitted, taken


@pytest.fixture
def parent(db: Database) -> str:
    """A finished job with weights of three kinds."""
    fence = running(db)
    for step, kind in ((4, "last"), (8, "last"), (8, "swa")):
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind), (), resumable=kind == "last")
    finish_job(db, fence, TerminalState(Status.SUCCEEDED))
    return fence.job_id


def begun(db: Database, owner: str = OWNER, **start: Any) -> str:
    return create_job(db, small_spec(**{"from": start}), owner=owner).job_id


def initial(db: Database) -> tuple[str, int]:
    """Kind and step of what the next job begins with."""
    claim = taken(db)
    assert claim is not None
    assert (claim.checkpoint, claim.initial is None) == (None, False)
    assert claim.initial is not None
    return claim.initial.kind, claim.initial.step


@pytest.mark.parametrize(
    ("start", "expected"), [({}, ("swa", 8)), ({"weights": "last"}, ("last", 8)), ({"weights": "swa"}, ("swa", 8))]
)
def test_it_begins_with_the_best_that_there_is(
    db: Database, parent: str, start: dict[str, Any], expected: tuple[str, int]
) -> None:
    child = begun(db, job=parent, **start)
    assert initial(db) == expected
    view = get_job_view(db, OWNER, child)
    assert (view.parent_id, view.parent_verb, view.parent_step) == (parent, "from", 8)
    assert view.spec["from"]["job"] == parent
    assert get_job_view(db, OWNER, parent).children == (child,)


def test_any_checkpoint_will_do(db: Database, parent: str) -> None:
    oldest, *_ = list_checkpoint_rows(db, OWNER, parent)
    begun(db, checkpoint=oldest.id)
    assert initial(db) == ("last", 4)


@pytest.mark.parametrize(
    ("start", "owner", "pointer"),
    [
        ({"weights": "ema"}, OWNER, "/from/job"),
        ({}, "bob", "/from/job"),
        ({"job": "job_00000000000000000000000000"}, OWNER, "/from/job"),
        ({"job": None, "checkpoint": "ckpt_00000000000000000000000000"}, OWNER, "/from/checkpoint"),
    ],
)
def test_what_is_not_there_or_not_yours_is_refused(
    db: Database, parent: str, start: dict[str, Any], owner: str, pointer: str
) -> None:
    with pytest.raises(InvalidSpec) as refused:
        begun(db, owner, **({"job": parent} | start))
    assert [problem.pointer for problem in refused.value.errors] == [pointer]
    assert len(get_job_view(db, OWNER, parent).children) == 0


def test_weights_of_another_architecture_are_refused(db: Database, parent: str) -> None:
    spec = small_spec(model={"name": "mlp", "hidden": [9]}, **{"from": {"job": parent}})
    with pytest.raises(InvalidSpec, match="fields") as refused:
        create_job(db, spec, owner=OWNER)
    assert [problem.pointer for problem in refused.value.errors] == ["/from"]
    dropout = small_spec(model={"name": "mlp", "hidden": [8], "dropout": 0.2}, **{"from": {"job": parent}})
    assert create_job(db, dropout, owner=OWNER).created, "what has no weights may differ"


@pytest.mark.parametrize(
    ("start", "pointer"),
    [
        ({}, "/from"),
        ({"job": "job_" + 26 * "0", "checkpoint": "ckpt_" + 26 * "0"}, "/from"),
        ({"checkpoint": "ckpt_" + 26 * "0", "weights": "last"}, "/from/weights"),
        ({"jop": "job_" + 26 * "0"}, "/from/jop"),
        ({"job": "7"}, "/from/job"),
    ],
)
def test_bad_starts_are_pointed_at(start: dict[str, Any], pointer: str) -> None:
    body = json.loads(small_spec().model_dump_json()) | {"from": start}
    with pytest.raises(InvalidSpec) as refused:
        parse_job(json.dumps(body).encode())
    assert pointer in [problem.pointer for problem in refused.value.errors]


def test_what_it_begins_with_is_kept_until_it_has_a_checkpoint_of_its_own(db: Database, parent: str) -> None:
    child = begun(db, job=parent, weights="last")
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, parent)
    assert refused.value.extra["needed_by"] == child
    claim = taken(db)
    assert claim is not None
    fence = Fence(child, claim.attempt)
    record_checkpoint(db, fence, replace(new_checkpoint(fence, 4), kind="last"), (), resumable=True)
    mark_job_deleted(db, OWNER, parent)
    assert get_job_view(db, OWNER, child).parent_id == parent


def test_a_retry_begins_where_the_first_try_began(db: Database, parent: str) -> None:
    child = begun(db, job=parent)
    request_cancel(db, OWNER, child)
    submitted(db, priority=-50)
    again = create_retry(db, child, SubmitContext(OWNER, Limits(), 60.0))
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, parent)
    assert refused.value.extra["needed_by"] == again.job_id
    assert initial(db) == ("swa", 8)
