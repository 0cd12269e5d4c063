"""A pinned checkpoint stays, and is not counted among those that stay anyway."""

from dataclasses import replace

import pytest
from sqlalchemy import select, update

from core.db.session import Database
from core.db.tables import checkpoint
from core.errors import Conflict, NotFound
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.changes import mark_job_deleted
from core.jobs.checkpoints.pins import add_pin, remove_pin
from core.jobs.checkpoints.records import (
    CheckpointRow,
    get_checkpoint_row,
    list_checkpoint_rows,
    mark_corrupt,
    record_checkpoint,
)
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.ledger.check import Ledger
from core.jobs.queue.submit import create_job
from core.lifecycle import Status
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER, new_checkpoint, running, small_spec, state_of


def record(db: Database, fence: Fence, step: int, kind: str = "last", loss: float = 0.5) -> CheckpointRow:
    new = replace(new_checkpoint(fence, step, kind), metrics={"val.loss": loss})
    return record_checkpoint(db, fence, new, [], resumable=kind == "last")


def kept(db: Database, fence: Fence, kind: str = "last") -> list[int]:
    return [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id) if row.kind == kind]


def test_the_newest_two_stay_and_the_pinned_one_besides_them(db: Database) -> None:
    fence = running(db, checkpoints={"every": "5st", "keep_last": 2})
    first = record(db, fence, 5)
    assert first.pinned_at is None
    pinned = add_pin(db, OWNER, first.id)
    assert pinned.pinned_at is not None
    assert add_pin(db, OWNER, first.id) == pinned
    for step in (10, 15, 20):
        record(db, fence, step)
    assert kept(db, fence) == [5, 15, 20]
    newest = add_pin(db, OWNER, list_checkpoint_rows(db, OWNER, fence.job_id)[-1].id)
    for step, stay in ((25, [5, 15, 20, 25]), (30, [5, 20, 25, 30])):
        record(db, fence, step)
        assert kept(db, fence) == stay, "two that are not pinned, always"
    remove_pin(db, OWNER, newest.id)
    assert kept(db, fence) == [5, 25, 30]
    remove_pin(db, OWNER, first.id)
    assert kept(db, fence) == [25, 30]
    remove_pin(db, OWNER, first.id)
    assert list(Ledger(db, None).iter_findings()) == []


def test_an_unpinned_one_that_is_new_enough_stays(db: Database) -> None:
    fence = running(db, checkpoints={"every": "5st", "keep_last": 2})
    rows = [record(db, fence, step) for step in (5, 10)]
    for row in rows:
        add_pin(db, OWNER, row.id)
        remove_pin(db, OWNER, row.id)
    assert kept(db, fence) == [5, 10]


def test_the_best_are_chosen_among_the_others(db: Database) -> None:
    """Losses 0.1 0.4 0.2 0.5 0.6 at the steps 1 to 5; the best is pinned, so that the next best stays too."""
    fence = running(db, checkpoints={"every": "1st", "keep_last": 2, "keep_best": 1})
    best = record(db, fence, 1, loss=0.1)
    add_pin(db, OWNER, best.id)
    for step, loss in ((2, 0.4), (3, 0.2), (4, 0.5), (5, 0.6)):
        record(db, fence, step, loss=loss)
    assert kept(db, fence) == [1, 3, 4, 5]
    remove_pin(db, OWNER, best.id)
    assert kept(db, fence) == [1, 4, 5]


@pytest.mark.parametrize(
    ("kind", "changes", "stay"),
    [
        ("cycle_end", {"checkpoints": {"keep_cycles": 2}}, [4, 16, 20]),
        ("snapshot", {"ensemble": {"method": "checkpoints", "every": 4, "members": 3}}, [4, 12, 16, 20]),
        ("best", {}, [4, 20]),
    ],
)
def test_of_the_other_kinds_too(db: Database, kind: str, changes: dict[str, object], stay: list[int]) -> None:
    fence = running(db, **changes)
    first = record(db, fence, 4, kind)
    add_pin(db, OWNER, first.id)
    for step in (8, 12, 16, 20):
        record(db, fence, step, kind)
    assert kept(db, fence, kind) == stay
    remove_pin(db, OWNER, first.id)
    assert kept(db, fence, kind) == stay[1:]


def test_what_was_taken_back_stays_as_weights_alone(db: Database) -> None:
    """Of the places 10, 20 and 30 the last turns out damaged, and the run goes back to 10 and comes by 20 again."""
    fence = running(db, checkpoints={"keep_last": 3})
    rows = {step: record(db, fence, step) for step in (10, 20, 30)}
    swa = record(db, fence, 20, "swa")
    add_pin(db, OWNER, rows[20].id)
    add_pin(db, OWNER, swa.id)
    record(db, fence, 10)
    found = {row.id: row for row in list_checkpoint_rows(db, OWNER, fence.job_id)}
    assert [(row.kind, row.step, row.superseded) for row in found.values()] == [
        ("last", 10, None), ("last", 20, 1), ("swa", 20, 1)]  # fmt: skip
    again = record(db, fence, 20)
    assert mark_corrupt(db, fence, again.id) is not None
    assert state_of(db, fence.job_id)["checkpoint_id"] != rows[20].id, "no run goes on from a past that is no more"
    assert list(Ledger(db, None).iter_findings()) == []
    end(db, fence)
    with pytest.raises(Conflict, match="pinned"):
        mark_job_deleted(db, OWNER, fence.job_id)
    newest = create_job(db, small_spec(**{"from": {"job": fence.job_id}}), owner=OWNER)
    assert newest.created
    for id_ in (rows[20].id, swa.id):
        remove_pin(db, OWNER, id_)
        with pytest.raises(NotFound):
            get_checkpoint_row(db, OWNER, id_)


def end(db: Database, fence: Fence) -> None:
    finish_job(db, fence, TerminalState(Status.SUCCEEDED, "completed"))


def test_a_job_with_pinned_ones_is_not_deleted(db: Database, tmp_path_factory: pytest.TempPathFactory) -> None:
    fence = running(db)
    rows = [record(db, fence, step) for step in (5, 10)]
    for row in rows:
        add_pin(db, OWNER, row.id)
    end(db, fence)
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, fence.job_id)
    assert refused.value.extra == {"current_status": "succeeded", "pinned": [row.id for row in rows]}
    for row in rows:
        remove_pin(db, OWNER, row.id)
    mark_job_deleted(db, OWNER, fence.job_id)
    with pytest.raises(NotFound):
        add_pin(db, OWNER, rows[0].id)
    home = tmp_path_factory.mktemp("care")
    care = GarbageCollector(db, LocalStore(home / "store"), Settings(home=home))
    assert (care.delete_pending_checkpoints(), care.delete_removed_jobs()) == (2, 1)


def test_what_cannot_be_pinned(db: Database) -> None:
    fence = running(db)
    old, damaged, _ = (record(db, fence, step) for step in (5, 10, 15))
    with pytest.raises(Conflict, match="being removed"):
        add_pin(db, OWNER, old.id)
    remove_pin(db, OWNER, old.id)
    mark_corrupt(db, fence, damaged.id)
    for owner, id_ in ((OWNER, damaged.id), ("bob", damaged.id), (OWNER, "ckpt_00000000000000000000000000")):
        with pytest.raises(NotFound):
            add_pin(db, owner, id_)
    with pytest.raises(NotFound):
        remove_pin(db, "bob", damaged.id)


def test_rows_of_the_release_before_are_not_pinned(db: Database) -> None:
    fence = running(db, checkpoints={"keep_last": 2})
    row = record(db, fence, 5)
    with db.write() as connection:
        connection.execute(update(checkpoint).values(pinned_at=None, superseded=None))
    for step in (10, 15):
        record(db, fence, step)
    with db.read() as connection:
        assert connection.execute(select(checkpoint.c.status).where(checkpoint.c.id == row.id)).scalar_one() == "doomed"
