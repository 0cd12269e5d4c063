"""The ledger check of analyses: healthy ones raise nothing, what is broken by hand is found."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import text

from core.db.session import Database, open_database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import record_checkpoint
from core.jobs.ledger.check import Ledger
from core.jobs.queue.submit import Idempotency
from core.jobs.verbs import request_pause
from core.lifecycle import Status
from core.store.local import LocalStore
from tests.service.test_analyses import ENTRY, asked, claimed, pair, trained
from tests.service.test_ledger import Keeping, told
from tests.support.jobs import OWNER, new_checkpoint


def paused(db: Database) -> str:
    """An analysis of two jobs that waits, with a tile and a key."""
    chosen = asked(db, ENTRY, Idempotency("paused", "digest"), checkpoints=pair(trained(db), trained(db)))
    fence = Fence(chosen, claimed(db).attempt)
    record_checkpoint(db, fence, new_checkpoint(fence, 2), (), resumable=True)
    request_pause(db, OWNER, chosen)
    give_back(db, fence, cause="pause", lost=False, failed=False, max_losses=3)
    return chosen


def test_analyses_by_the_rules_raise_nothing(db: Database, tmp_path: Path) -> None:
    """Asked for with a key as every client does, looked at, ended, its jobs deleted; and a lost result is found."""
    store = LocalStore(tmp_path / "store")
    keeping = Keeping(db, store, tmp_path / "aside")
    jobs = [keeping.life(), keeping.life()]
    chosen = asked(db, ENTRY, Idempotency("key", "digest"), checkpoints=pair(*jobs))
    asked(db, ENTRY, Idempotency("recipe", "digest"), kind="lr_range", job=jobs[1])
    fence = Fence(chosen, claimed(db).attempt)
    keeping.keep(fence, 3)
    assert list(Ledger(db, store, digests=True).iter_findings()) == []
    result = keeping.keep(fence, 4, "result")
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed", None, {"partial": False}))
    mark_job_deleted(db, OWNER, jobs[0])
    assert list(Ledger(db, store, digests=True).iter_findings()) == []
    (tmp_path / "store" / result.key / "weights").unlink()
    (found,) = Ledger(db, store).iter_findings()
    assert (found.rule, found.job_id, found.message.partition(": ")[2]) == ("object", chosen, "it is missing")
    mark_job_deleted(db, OWNER, chosen)
    assert list(Ledger(db, store).iter_findings()) == []  # the promise outlives what was deleted


LOOKED = "(SELECT checkpoint_id FROM analysis_input WHERE analysis_id = :job AND position = 1)"
BROKEN: list[tuple[str, str]] = [
    ("DELETE FROM analysis_input WHERE analysis_id = :job", "it is of the kind analysis, and has no inputs"),
    (
        "DELETE FROM analysis_input WHERE analysis_id = :job AND position = 0",
        "one of its inputs is missing from their list",
    ),
    ("UPDATE job SET kind = 'train' WHERE id = :job", "it is of the kind train, and has inputs"),
    ("UPDATE checkpoint SET status = 'doomed' WHERE id = LOOKED", "the job needs it as an input, and it is doomed"),
    ("DELETE FROM checkpoint WHERE id = LOOKED", "the job needs it as an input, and it is gone"),
    (
        "UPDATE job SET owner = '' WHERE id = (SELECT job_id FROM checkpoint WHERE id = LOOKED)",
        "the job needs it as an input, and it is gone",
    ),
    (
        "UPDATE analysis_input SET job_id = 'job_gone' WHERE analysis_id = :job AND position = 1",
        "the job needs it as an input, and it is gone",
    ),
]


@pytest.mark.parametrize(("statement", "problem"), BROKEN)
def test_what_an_analysis_looks_at_is_there_until_it_has_ended(db: Database, statement: str, problem: str) -> None:
    chosen = paused(db)
    with db.write() as connection:
        assert connection.execute(text(statement.replace("LOOKED", LOOKED)), {"job": chosen}).rowcount > 0
    found = [each for each in Ledger(db, None).iter_findings() if each.job_id == chosen]
    assert told(found) == {("input", problem)}
    assert all(each.do for each in found)


def test_rows_of_an_analysis_that_is_gone_are_found(sqlite_url: str) -> None:
    db = open_database(sqlite_url, pool_size=2)
    chosen = paused(db)
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM job WHERE id = ?", (chosen,))
    connection.close()
    found = list(Ledger(db, None).iter_findings())
    db.close()
    assert {(each.rule, each.job_id) for each in found} == {("orphan", chosen)}
    assert {each.about for each in found} == {"checkpoint", "event", "input", "state"}
