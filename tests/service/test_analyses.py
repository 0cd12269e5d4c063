"""Analyses as rows: what they look at is chosen when they are submitted, and stays until they have ended."""

import json
from typing import Any

import pytest

from core.db.session import Database
from core.errors import Conflict, InvalidSpec, NotFound
from core.jobs.analyses import create_analysis, inputs_of, list_analysis_views, result_of
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import get_checkpoint_row, list_checkpoint_rows, record_checkpoint
from core.jobs.ledger.check import Ledger
from core.jobs.queries import get_job_view, list_job_views
from core.jobs.queue.claim import Claim
from core.jobs.queue.submit import Idempotency, SubmitContext, create_job
from core.jobs.search import JobSearch
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from core.recipe.parse import parse_analysis
from core.settings import Limits
from tests.support.jobs import OWNER, new_checkpoint, running, small_spec, submitted, taken

ENTRY = SubmitContext(OWNER, Limits(), 60.0)


def asked(db: Database, entry: SubmitContext = ENTRY, idempotency: Idempotency | None = None, **fields: Any) -> str:
    body = {"kind": "average", **fields}
    spec = parse_analysis(json.dumps(body).encode(), body)
    return create_analysis(db, spec, entry, idempotency).job_id


def pair(*jobs: str) -> list[dict[str, str]]:
    return [{"job": job_id} for job_id in jobs]


def trained(db: Database, *kinds: str, **changes: Any) -> str:
    """A finished job with weights of these kinds."""
    fence = running(db, **changes)
    for step, kind in enumerate(kinds or ("last",), 4):
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind), (), resumable=kind == "last")
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    return fence.job_id


def claimed(db: Database) -> Claim:
    found = taken(db)
    assert found is not None
    return found


def test_it_looks_at_the_best_weights_unless_it_is_said_which(db: Database) -> None:
    first, second = trained(db, "last", "swa"), trained(db, "last")
    chosen = asked(db, checkpoints=[{"job": first}, {"job": first, "weights": "last"}, {"job": second}])
    (found,) = inputs_of(db, [chosen]).values()
    assert [(each.job_id, each.checkpoint_kind, each.step) for each in found] == [
        (first, "swa", 5),
        (first, "last", 4),
        (second, "last", 4),
    ]
    claim = claimed(db)
    assert (claim.job_id, claim.kind, claim.checkpoint) == (chosen, "analysis", None)
    assert [look.row and look.row.id for look in claim.looks] == [each.checkpoint_id for each in found]
    assert claim.looks[0].label == f"{first} (swa, step 5)"


def test_it_is_no_job_and_jobs_are_no_analyses(db: Database) -> None:
    first, second = trained(db), trained(db)
    chosen = asked(db, checkpoints=pair(first, second))
    assert {view.id for view in list_job_views(db, OWNER)[0]} == {first, second}
    assert [view.id for view in list_analysis_views(db, OWNER, JobSearch())[0]] == [chosen]
    assert [view.id for view in list_analysis_views(db, OWNER, JobSearch(), of_job=second)[0]] == [chosen]
    assert list_analysis_views(db, OWNER, JobSearch(), of_job=submitted(db))[0] == []
    assert list_analysis_views(db, "somebody else", JobSearch())[0] == []
    with pytest.raises(NotFound):
        get_job_view(db, "somebody else", chosen)


def test_what_it_looks_at_stays_until_it_has_ended(db: Database) -> None:
    first, second = trained(db), trained(db)
    chosen = asked(db, checkpoints=pair(first, second))
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, first)
    assert refused.value.extra["needed_by"] == chosen
    claim = claimed(db)
    finish_job(db, Fence(chosen, claim.attempt), TerminalState(Status.SUCCEEDED, "completed"))
    mark_job_deleted(db, OWNER, first)
    (found,) = inputs_of(db, [chosen]).values()
    assert found[0].job_id == first


def test_a_recipe_that_it_will_train_by_stays_too(db: Database) -> None:
    """It looks at no checkpoint; without the job there would be nothing to do."""
    known = trained(db)
    chosen = asked(db, kind="lr_range", job=known)
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, known)
    assert refused.value.extra["needed_by"] == chosen
    request_cancel(db, OWNER, chosen)
    mark_job_deleted(db, OWNER, known)


def test_retention_passes_over_what_it_looks_at(db: Database) -> None:
    fence = running(db)
    for step in (1, 2):
        record_checkpoint(db, fence, new_checkpoint(fence, step), (), resumable=True)
    oldest = list_checkpoint_rows(db, OWNER, fence.job_id)[0].id
    other = asked(db, checkpoints=[{"checkpoint": oldest}, {"job": fence.job_id}])
    for step in (3, 4, 5):
        record_checkpoint(db, fence, new_checkpoint(fence, step), (), resumable=True)
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [1, 2, 4, 5]
    request_cancel(db, OWNER, other)
    record_checkpoint(db, fence, new_checkpoint(fence, 6), (), resumable=True)
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [5, 6]


def test_its_tiles_and_its_result_are_fenced_like_checkpoints(db: Database) -> None:
    first, second = trained(db), trained(db)
    chosen = asked(db, checkpoints=pair(first, second))
    fence = Fence(chosen, claimed(db).attempt)
    for step in (1, 2, 3):
        record_checkpoint(db, fence, new_checkpoint(fence, step), (), resumable=True)
    give_back(db, fence, cause="stopped", lost=False, failed=False, max_losses=3)
    claim = claimed(db)
    assert claim.checkpoint is not None
    assert claim.checkpoint.step == 3
    fence = Fence(chosen, claim.attempt)
    assert result_of(db, OWNER, chosen) is None
    row = new_checkpoint(fence, 4, "result")
    record_checkpoint(db, fence, row, (), resumable=False)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed", None, {"partial": False}))
    found = result_of(db, OWNER, chosen)
    assert found is not None
    assert found.id == row.id
    assert result_of(db, "somebody else", chosen) is None
    with pytest.raises(NotFound):  # it is no checkpoint of a job: nobody trains on from it
        get_checkpoint_row(db, OWNER, row.id)
    with pytest.raises(InvalidSpec):
        asked(db, checkpoints=[{"checkpoint": row.id}, {"job": first}])
    assert list(Ledger(db, None).iter_findings()) == []


def test_one_key_makes_one_analysis(db: Database) -> None:
    jobs = pair(trained(db), trained(db))
    key = Idempotency("again", "digest")
    assert asked(db, ENTRY, key, checkpoints=jobs) == asked(db, ENTRY, key, checkpoints=jobs)


@pytest.mark.parametrize("kind", ["interpolation", "connect", "landscape"])
def test_where_weights_began_is_no_part_of_an_architecture(db: Database, kind: str) -> None:
    """Two points of one function; networks of other seeds and schemes. One in a plane is another thing."""
    data = {"name": "function", "function": "double_well"}
    points = [trained(db, model={"name": "point", "start": [x]}, data=data, batch_size=1) for x in (-1.0, 1.5)]
    plane = {"name": "function", "function": "rosenbrock"}
    other = trained(db, model={"name": "point", "start": [0.0, 0.0]}, data=plane, batch_size=1)
    inits = ({"seed": 3}, {"scheme": "kaiming_normal"})
    networks = [trained(db, model={"name": "mlp", "hidden": [8], "init": init}) for init in inits]
    fields = {"kind": kind, **({"directions": "between", "dimensions": 1} if kind == "landscape" else {})}
    for jobs in (points, networks):
        assert asked(db, **fields, checkpoints=pair(*jobs))
    with pytest.raises(InvalidSpec) as refused:
        asked(db, **fields, checkpoints=pair(points[0], other))
    assert [each.pointer for each in refused.value.errors] == ["/checkpoints/1"]


@pytest.mark.parametrize(
    ("fields", "pointer", "says"),
    [
        ({}, "", "give the input"),
        ({"checkpoints": [{"job": "FIRST"}]}, "/checkpoints", "2 to 64"),
        ({"checkpoints": [{"job": "FIRST"}, {"job": "EMPTY"}]}, "/checkpoints/1/job", "no checkpoint"),
        ({"checkpoints": [{"job": "FIRST"}, {"job": "FOREIGN"}]}, "/checkpoints/1/job", "no checkpoint"),
        ({"checkpoints": [{"job": "FIRST"}, {"job": "WIDER"}]}, "/checkpoints/1", "another architecture"),
        ({"checkpoints": [{"job": "FIRST", "weights": "ema"}, {"job": "FIRST"}]}, "/checkpoints/0/job", "kind ema"),
        ({"job": "FIRST", "checkpoints": [{"job": "FIRST"}]}, "", "give the input"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_with_its_place(
    db: Database, fields: dict[str, Any], pointer: str, says: str
) -> None:
    foreign = create_job(db, small_spec(), owner="bob").job_id
    theirs = Fence(foreign, claimed(db).attempt)
    record_checkpoint(db, theirs, new_checkpoint(theirs, 1), (), resumable=True)
    wider = trained(db, model={"name": "mlp", "hidden": [9]})
    jobs = {"FIRST": trained(db), "WIDER": wider, "FOREIGN": foreign, "EMPTY": submitted(db)}
    text = json.dumps(fields)
    for name, job_id in jobs.items():
        text = text.replace(name, job_id)
    with pytest.raises(InvalidSpec) as refused:
        asked(db, **json.loads(text))
    (problem,) = refused.value.errors
    assert problem.pointer == pointer
    assert says in problem.message
