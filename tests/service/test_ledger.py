"""The ledger check: lives that were lived by the rules raise nothing, each thing that is broken by hand is found."""

import hashlib
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from core.db.session import Database, open_database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job, give_back
from core.jobs.branch import create_fork, create_retry
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.records import NewCheckpoint, mark_corrupt, record_checkpoint
from core.jobs.events.log import record_events
from core.jobs.ledger.check import Ledger
from core.jobs.ledger.finding import Finding
from core.jobs.ledger.timeline import Step, timeline_problems
from core.jobs.metrics.chunks import record_points, roll_back
from core.jobs.queue.submit import Idempotency, SubmitContext, create_job
from core.jobs.verbs import request_cancel, request_pause, request_resume
from core.lifecycle import Status
from core.settings import Limits
from core.store.base import StoreUnreadable
from core.store.local import LocalStore
from tests.support.jobs import OWNER, chunk, new_checkpoint, running, small_spec, submitted, taken

ROLES = {"weights": b"weights", "state": b"state of it all", "manifest": b"{}"}
DONE = TerminalState(Status.SUCCEEDED, "completed")


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


class Keeping:
    """Writes checkpoints as workers do: the objects, if there is a store, then the row."""

    def __init__(self, db: Database, store: LocalStore | None, aside: Path) -> None:
        self.db, self.store, self.aside = db, store, aside

    def keep(self, fence: Fence, step: int, kind: str = "last") -> NewCheckpoint:
        new = new_checkpoint(fence, step, kind)
        files: dict[str, dict[str, Any]] = {
            role: {"name": role, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for role, content in ROLES.items()
        }
        if self.store:
            for role, content in ROLES.items():
                self.aside.write_bytes(content)
                self.store.put_file(self.aside, f"{new.key}/{role}")
        row = replace(new, files=files, sha256=files["weights"]["sha256"], bytes=len(ROLES["weights"]))
        record_checkpoint(self.db, fence, row, (), resumable=kind == "last")
        return row

    def life(self) -> str:
        """A job that ran to its end, with two chunks before a checkpoint at 4, and one after it and one at 8."""
        fence = running(self.db)
        record_points(self.db, fence, [chunk("lr", 0, 2), chunk("lr", 2, 2, number=1)])
        self.keep(fence, 4)
        record_points(self.db, fence, [chunk("lr", 4, 4, after_step=4)])
        self.keep(fence, 8)
        self.keep(fence, 8, "swa")
        finish_job(self.db, fence, DONE)
        return fence.job_id


@pytest.fixture
def keeping(db: Database, store: LocalStore, tmp_path: Path) -> Keeping:
    return Keeping(db, store, tmp_path / "aside")


def told(found: list[Finding]) -> set[tuple[str, str]]:
    return {(finding.rule, finding.message) for finding in found}


def test_lives_by_the_rules_raise_nothing(db: Database, store: LocalStore, keeping: Keeping) -> None:
    keeping.life()
    mark_job_deleted(db, OWNER, keeping.life())
    lost = running(db)  # whose checkpoint turned out bad, which diverged and went back, and whose worker was lost
    record_points(db, lost, [chunk("lr", 0, 4)])
    keeping.keep(lost, 4)
    bad = keeping.keep(lost, 8)
    assert mark_corrupt(db, lost, bad.id) is not None
    record_points(db, lost, [chunk("lr", 4, 3, after_step=4)])
    roll_back(db, lost, 4, "back")
    record_points(db, lost, [replace(chunk("lr", 4, 2, after_step=4), rollbacks=1)])
    record_events(db, lost, "log", [{"level": "info", "message": "hello"}])
    for wish in (request_pause, request_resume, request_pause):
        wish(db, OWNER, lost.job_id)
    assert give_back(db, lost, cause="worker lost", lost=True, max_losses=3) is Status.PAUSED
    request_resume(db, OWNER, lost.job_id)
    again = taken(db)
    assert again is not None
    request_cancel(db, OWNER, again.job_id)
    finish_job(db, Fence(again.job_id, again.attempt), TerminalState(Status.CANCELLED, "cancelled"))
    failed = running(db)
    finish_job(db, failed, TerminalState(Status.FAILED, "non_finite", {"code": "diverged", "message": "nan"}))
    request_cancel(db, OWNER, submitted(db))
    request_pause(db, OWNER, submitted(db))
    unreadable = submitted(db)
    with db.write() as connection:
        connection.execute(text("UPDATE job SET spec = '{}' WHERE id = :job"), {"job": unreadable})
    assert taken(db) is None
    running(db)
    create_job(db, small_spec(), owner=OWNER, idempotency=Idempotency("key", "digest"))
    with db.write() as connection:
        connection.execute(text("UPDATE job_state SET rank = rank + 1e9 WHERE status = 'queued'"))
    family(db, keeping, lost.job_id)
    ledger = Ledger(db, store, digests=True, page_rows=3)
    assert list(ledger.iter_findings()) == []
    counts = dict(ledger.counts)
    assert counts.pop("events") > 20
    assert counts == {
        "jobs": 9 + 3,
        "checkpoints": 8 + 1,
        "objects": 12 + 3,
        "idempotency keys": 1,
        "metric chunks": 3 + 3 + 1 + 3,
        "metric points": 8 + 8 + 4 + 12,
    }


def family(db: Database, keeping: Keeping, parent: str) -> None:
    """Children of a cancelled job: one that ended, one that has not begun, one that outlived what it began with."""
    entry = SubmitContext(OWNER, Limits(), 60.0)
    create_retry(db, parent, entry)
    child = taken(db)
    assert child is not None
    assert child.checkpoint is not None
    fence = Fence(child.job_id, child.attempt)
    keeping.keep(fence, 12)
    finish_job(db, fence, DONE)
    create_fork(db, parent, entry, changes={"epochs": 9}, at=4)
    gone = create_fork(db, parent, entry, changes={"epochs": 9}, at=4).job_id
    request_cancel(db, OWNER, gone)
    with db.write() as connection:
        statement = text("UPDATE job_state SET checkpoint_id = 'ckpt_removed' WHERE job_id = :job")
        connection.execute(statement, {"job": gone})


BROKEN: list[tuple[str, set[tuple[str, str]]]] = [
    ("DELETE FROM job_state WHERE job_id = :job", {("state", "it has no state row")}),
    (
        "UPDATE job_state SET project = 'bob' WHERE job_id = :job",
        {("state", "its state belongs to 'bob', the job to 'alice'")},
    ),
    ("UPDATE job_state SET lease_until = 1 WHERE job_id = :job", {("state", "it is succeeded and has a lease")}),
    (
        "UPDATE job_state SET status = 'running', worker = 'w' WHERE job_id = :job",
        {
            ("state", "it is running without a lease"),
            ("ending", "it is running and has finished_at"),
            ("ending", "it is running and has stop_reason"),
            ("timeline", "it ends succeeded under attempt 1, but the job is running under attempt 1"),
        },
    ),
    ("UPDATE job SET finished_at = NULL WHERE id = :job", {("ending", "it is succeeded and has no finished_at")}),
    (
        "UPDATE job SET stop_reason = 'cancelled' WHERE id = :job",
        {("ending", "it is succeeded with stop_reason 'cancelled'")},
    ),
    ("UPDATE job SET error = '{}' WHERE id = :job", {("ending", "it is succeeded and has an error")}),
    (
        "UPDATE job_state SET status = 'failed' WHERE job_id = :job",
        {
            ("ending", "it failed without an error"),
            ("ending", "it is failed with stop_reason 'completed'"),
            ("timeline", "it ends succeeded under attempt 1, but the job is failed under attempt 1"),
        },
    ),
    (
        "UPDATE event SET attempt = 7 WHERE job_id = :job AND type = 'checkpoint'",
        {("attempt", "of attempt 7, and the job is at 1")},
    ),
    (
        "UPDATE checkpoint SET attempt = 7 WHERE job_id = :job AND kind = 'swa'",
        {("attempt", "of attempt 7, and the job is at 1")},
    ),
    (
        "UPDATE metric_chunk SET attempt = 7 * 1024 WHERE job_id = :job AND after_step = 4",
        {("attempt", "of attempt 7, and the job is at 1")},
    ),
    (
        "UPDATE metric_chunk SET attempt = 1030 WHERE job_id = :job AND after_step = 0 AND number = 1",
        {("metrics", "it is of an earlier attempt than the chunk before it")},
    ),
    (
        "UPDATE metric_chunk SET first_step = 1 WHERE job_id = :job AND number = 1",
        {("metrics", "it overlaps the chunk before it")},
    ),
    (
        "UPDATE metric_chunk SET first_step = 3 WHERE job_id = :job AND after_step = 4",
        {("metrics", "it begins before the checkpoint that it follows")},
    ),
    (
        "DELETE FROM metric_chunk WHERE job_id = :job AND after_step = 0 AND number = 0",
        {("metrics", "a chunk is missing before it")},
    ),
    ("UPDATE metric_chunk SET points = 1 WHERE job_id = :job AND number = 1", {("metrics", "its columns differ")}),
    (
        "UPDATE metric_chunk SET last_step = first_step WHERE job_id = :job AND number = 1",
        {("metrics", "its points do not fit its steps")},
    ),
    (
        "UPDATE metric_chunk SET after_step = 3, first_step = 4 WHERE job_id = :job AND after_step = 4",
        set(),  # a checkpoint that is not there any more may well have been at step 3
    ),
    (
        "UPDATE metric_chunk SET after_step = 2 WHERE job_id = :job AND after_step = 4",
        {("metrics", "the chunk before it reaches over its checkpoint")},
    ),
    (
        "UPDATE job_state SET checkpoint_id = 'ckpt_other' WHERE job_id = :job",
        {("checkpoint", "the job would resume from it, and it is neither this job's nor its parent's")},
    ),
    (
        "UPDATE checkpoint SET status = 'doomed' WHERE job_id = :job AND kind = 'last' AND step = 8",
        {("checkpoint", "the job would resume from it, and it is doomed")},
    ),
    (
        "UPDATE job_state SET checkpoint_id = (SELECT min(id) FROM checkpoint WHERE job_id = :job) WHERE job_id = :job",
        {("checkpoint", "it is good and resumable at step 8, and the job would not resume from it")},
    ),
    (
        "UPDATE checkpoint SET sha256 = 'ab' WHERE job_id = :job AND kind = 'swa'",
        {("checkpoint", "its row and its list of files disagree about the weights")},
    ),
    (
        "UPDATE checkpoint SET stored = 1 WHERE job_id = :job AND kind = 'swa'",
        {("checkpoint", "its files do not add up to 1 bytes")},
    ),
    (
        "DELETE FROM event WHERE job_id = :job AND attempt = 0",
        {("timeline", "running under attempt 1 cannot follow nothing under attempt 0")},
    ),
    (
        'UPDATE event SET data = \'{"status":"done"}\' WHERE job_id = :job AND attempt = 0',
        {
            ("timeline", "'done' is no status of a job that is None under attempt 0"),
            ("timeline", "running under attempt 1 cannot follow nothing under attempt 0"),
        },
    ),
    (
        "INSERT INTO idempotency (owner, key, body_digest, job_id, created_at) VALUES ('carol', 'k', 'd', :job, 0)",
        {("promise", "carol's key promises a job of alice")},
    ),
    (
        "INSERT INTO idempotency (owner, key, body_digest, job_id, created_at) VALUES ('alice', 'l', 'd', 'job', 0)",
        set(),  # said of no job, see below
    ),
]


def test_what_is_broken_in_the_database_is_found(db: Database, tmp_path: Path) -> None:
    """Each job is broken in one way; what is found of it is that and nothing else."""
    wanted, keeping = {}, Keeping(db, None, tmp_path)
    for statement, problems in BROKEN:
        job_id = keeping.life()
        with db.write() as connection:
            changed = connection.execute(text(statement), {"job": job_id} if ":job" in statement else {})
            assert changed.rowcount != 0, statement
        wanted[job_id] = (statement, problems)
    found = list(Ledger(db, None).iter_findings())
    for job_id, (statement, problems) in wanted.items():
        assert (statement, told([each for each in found if each.job_id == job_id])) == (statement, problems)
    assert told([each for each in found if not each.job_id]) == {
        ("promise", "alice's key promises 'job', which is no job")
    }
    assert all(finding.do for finding in found)


class Unreadable(LocalStore):
    """Has everything, and can read nothing."""

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        raise StoreUnreadable


def test_damaged_objects_are_found(sqlite_url: str, store: LocalStore, tmp_path: Path) -> None:
    db = open_database(sqlite_url, pool_size=2)
    keeping = Keeping(db, store, tmp_path / "aside")
    keeping.life()
    fence = running(db)
    key = f"{keeping.keep(fence, 4).key}/weights"
    keeping.life()
    path = tmp_path / "store" / key

    def found(store: LocalStore, *, digests: bool = False) -> list[tuple[str, str, str]]:
        seen = Ledger(db, store, digests=digests).iter_findings()
        return [(each.job_id, each.about, each.message.partition(": ")[2]) for each in seen if each.rule == "object"]

    assert found(store, digests=True) == []
    assert (fence.job_id, key, "it cannot be read") in found(Unreadable(tmp_path / "store"), digests=True)
    path.write_bytes(b"WEIGHTS")
    assert found(store) == []
    upper, lower = (hashlib.sha256(each).hexdigest() for each in (b"WEIGHTS", b"weights"))
    assert found(store, digests=True) == [(fence.job_id, key, f"its SHA-256 is {upper} instead of {lower}")]
    path.write_bytes(b"w")
    assert found(store) == [(fence.job_id, key, "it has 1 bytes instead of 7")]
    path.unlink()
    assert found(store) == [(fence.job_id, key, "it is missing")]
    db.close()


def test_rows_without_a_job_are_found(sqlite_url: str, store: LocalStore, tmp_path: Path) -> None:
    """SQLite keeps its foreign keys only for those who ask it to."""
    db = open_database(sqlite_url, pool_size=2)
    job_id = Keeping(db, store, tmp_path / "aside").life()
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as connection:
        connection.execute("DELETE FROM job WHERE id = ?", (job_id,))
    connection.close()
    found = list(Ledger(db, store).iter_findings())
    db.close()
    assert {(each.rule, each.job_id) for each in found} == {("orphan", job_id)}
    assert {each.about for each in found} == {"checkpoint", "event", "metric", "state"}


@pytest.mark.parametrize(
    "steps",
    [
        [(0, "queued"), (1, "running"), (1, "pausing"), (1, "running"), (1, "queued"), (2, "running"), (2, "failed")],
        [(0, "queued"), (1, "running"), (1, "pausing"), (1, "cancelling"), (1, "cancelled")],
        [(0, "queued"), (0, "paused"), (0, "queued"), (1, "failed")],
    ],
)
def test_a_lawful_timeline(steps: list[Step]) -> None:
    assert list(timeline_problems(steps, steps[-1][1], steps[-1][0])) == []


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [(1, "queued")],
        [(0, "queued"), (0, "running")],  # no claim
        [(0, "queued"), (2, "running")],  # two
        [(0, "queued"), (0, "succeeded")],
        [(0, "queued"), (1, "running"), (1, "running")],  # nobody had paused it
        [(0, "queued"), (1, "running"), (1, "cancelled"), (1, "queued")],
        [(0, "queued"), (0, "pausing")],  # nobody runs it
        [(0, "queued"), (1, "running"), (0, "queued")],
    ],
)
def test_an_unlawful_timeline(steps: list[Step]) -> None:
    last = steps[-1] if steps else (0, "queued")
    assert list(timeline_problems(steps, last[1], last[0]))
