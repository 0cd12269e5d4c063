"""Assemblies as rows: which results they may read, and that these stay until they have ended."""

import json
from typing import Any

import pytest

from core.db.session import Database
from core.errors import Conflict, InvalidSpec
from core.jobs.analyses import inputs_of, result_of
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.ledger.check import Ledger
from core.jobs.queue.submit import SubmitContext
from core.jobs.verbs import request_cancel
from core.lifecycle import Status
from core.recipe.parse import parse_analysis
from core.settings import Limits
from tests.service.test_analyses import ENTRY, asked, claimed, trained
from tests.support.jobs import OWNER, new_checkpoint, running

NUMBERS = {"partial": False, "part": {"number": 1, "of": 2}, "centre": {"train": {"loss": float("nan")}}}
UNKNOWN = "an_" + "0" * 26
JOB = "job_" + "0" * 26


def part(db: Database, number: int, of: int = 2, **fields: Any) -> str:
    """The id of a landscape that waits."""
    return asked(db, kind="landscape", part={"number": number, "of": of}, **fields)


def done(db: Database, analysis_id: str, status: Status = Status.SUCCEEDED) -> str:
    """It is computed, or what there is of it."""
    claim = claimed(db)
    assert claim.job_id == analysis_id
    fence = Fence(analysis_id, claim.attempt)
    record_checkpoint(db, fence, new_checkpoint(fence, 3, "result"), (), resumable=False)
    finish_job(db, fence, TerminalState(status, "completed", None, NUMBERS))
    return analysis_id


def both(db: Database, job_id: str) -> list[str]:
    return [done(db, part(db, number, job=job_id)) for number in (1, 2)]


def test_it_reads_the_results_of_its_parts(db: Database) -> None:
    parts = both(db, trained(db))
    chosen = asked(db, kind="assembly", analyses=parts, name="whole")
    rows = [result_of(db, OWNER, each) for each in parts]
    (found,) = inputs_of(db, [chosen]).values()
    assert [(each.job_id, each.checkpoint_id, each.checkpoint_kind) for each in found] == [
        (each, row.id, "result") for each, row in zip(parts, rows, strict=True) if row
    ]
    claim = claimed(db)
    assert (claim.job_id, claim.looks, claim.spec.kind) == (chosen, (), "assembly")  # type: ignore[union-attr]
    assert [each.row for each in claim.findings] == rows
    assert [each.label for each in claim.findings] == parts
    assert claim.findings[0].numbers["part"] == {"number": 1, "of": 2}
    assert claim.findings[0].numbers["centre"] == {"train": {"loss": "NaN"}}
    assert [each.spec.part.number for each in claim.findings] == [1, 2]  # type: ignore[union-attr]
    assert list(Ledger(db, None).iter_findings()) == []


def test_its_parts_stay_until_it_has_ended(db: Database) -> None:
    job_id = trained(db)
    parts = both(db, job_id)
    chosen = asked(db, kind="assembly", analyses=parts)
    for each in parts:
        with pytest.raises(Conflict) as refused:
            mark_job_deleted(db, OWNER, each)
        assert refused.value.extra["needed_by"] == chosen
    mark_job_deleted(db, OWNER, job_id)  # what the parts looked at is needed no more
    fence = Fence(chosen, claimed(db).attempt)
    with pytest.raises(Conflict):
        mark_job_deleted(db, OWNER, parts[0])
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))
    for each in parts:
        mark_job_deleted(db, OWNER, each)
    (found,) = inputs_of(db, [chosen]).values()
    assert [each.job_id for each in found] == parts


def test_a_cancelled_one_needs_nothing(db: Database) -> None:
    parts = both(db, trained(db))
    chosen = asked(db, kind="assembly", analyses=parts)
    request_cancel(db, OWNER, chosen)
    mark_job_deleted(db, OWNER, parts[1])
    refused = problem(db, parts)
    assert (refused.pointer, refused.message) == ("/analyses/1", "there is no analysis of yours with this id")


def problem(db: Database, parts: list[str], entry: SubmitContext = ENTRY) -> Any:
    """The only one that is found, with a way out."""
    with pytest.raises(InvalidSpec) as refused:
        asked(db, entry, kind="assembly", analyses=parts)
    (found,) = refused.value.errors
    assert found.hint
    return found


def test_what_is_no_result_of_ones_own_is_refused(db: Database) -> None:
    job_id = trained(db)
    first, second = both(db, job_id)
    assert problem(db, [first, UNKNOWN]).pointer == "/analyses/1"
    stranger = SubmitContext("bob", Limits(), 60.0)
    with pytest.raises(InvalidSpec) as refused:
        asked(db, stranger, kind="assembly", analyses=[first, second])
    assert [each.pointer for each in refused.value.errors] == ["/analyses/0", "/analyses/1"]
    assert {each.message for each in refused.value.errors} == {"there is no analysis of yours with this id"}
    waiting = part(db, 2, job=job_id)
    assert problem(db, [first, waiting]).message == "it has not succeeded: it is queued"
    request_cancel(db, OWNER, waiting)
    found = problem(db, [first, waiting])
    assert (found.message, found.hint) == ("it has not succeeded: it is cancelled", "submit it again")
    failed = done(db, part(db, 2, job=job_id), Status.FAILED)
    assert problem(db, [failed, first]).pointer == "/analyses/0"
    whole = done(db, asked(db, kind="landscape", job=job_id))
    assert problem(db, [first, whole]).pointer == "/analyses/1"
    assert problem(db, [second, first, second]).message == "part 2 is given 2 times"


def test_parts_have_to_have_looked_at_the_same_weights(db: Database) -> None:
    """A job that trains on: `job` is another checkpoint each time; one that is named is the same."""
    fence = running(db)
    parts = []
    for step in (1, 2):
        record_checkpoint(db, fence, new_checkpoint(fence, step), (), resumable=True)
        parts.append(done(db, part(db, step, job=fence.job_id)))
    found = problem(db, parts)
    assert (found.pointer, found.message) == ("/analyses/1", "it read other checkpoints than the first analysis")
    (looked,) = inputs_of(db, parts[:1]).values()
    parts[1] = done(db, part(db, 2, checkpoint=looked[0].checkpoint_id))
    assert asked(db, kind="assembly", analyses=parts)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"kind": "landscape", "job": JOB, "part": {"number": 5, "of": 4}}, "/part/number"),
        ({"kind": "landscape", "job": JOB, "part": {"number": 0, "of": 4}}, "/part/number"),
        ({"kind": "landscape", "job": JOB, "part": {"number": 1, "of": 65}}, "/part/of"),
        ({"kind": "assembly"}, "/analyses"),
        ({"kind": "assembly", "analyses": [UNKNOWN]}, "/analyses"),
        ({"kind": "assembly", "analyses": [JOB, UNKNOWN]}, "/analyses/0"),
        ({"kind": "assembly", "analyses": [UNKNOWN, UNKNOWN], "job": JOB}, "/job"),
    ],
)
def test_requests_that_make_no_sense_say_where(fields: dict[str, Any], pointer: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        parse_analysis(json.dumps(fields).encode(), fields)
    assert refused.value.errors[0].pointer == pointer
