"""Checkpoints exist through their rows; which rows stay is decided when a new one comes."""

import json
import math
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from core.db.session import Database
from core.db.tables import checkpoint, job
from core.errors import NotFound
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.finish import give_back
from core.jobs.checkpoints.records import get_checkpoint_row, list_checkpoint_rows, mark_corrupt, record_checkpoint
from core.jobs.events.record import list_events
from core.jobs.metrics.chunks import read_series
from tests.support.jobs import OWNER, chunk, new_checkpoint, running, state_of, taken


def status_by_step(db: Database, kind: str = "last") -> dict[int, str]:
    with db.read() as connection:
        query = select(checkpoint.c.step, checkpoint.c.status).where(checkpoint.c.kind == kind)
        rows = connection.execute(query.order_by(checkpoint.c.created_at)).all()
    return {row.step: row.status for row in rows}


def test_a_checkpoint_is_written_with_its_points(db: Database) -> None:
    fence = running(db)
    new = new_checkpoint(fence, 8)
    row = record_checkpoint(db, fence, new, [chunk("lr", 0, 8)], resumable=True)
    assert (row.id, row.job_id, row.attempt, row.step, row.epoch) == (new.id, fence.job_id, 1, 8, 2)
    assert (row.sha256, row.bytes, row.files, row.manifest) == (new.sha256, new.bytes, new.files, new.manifest)
    assert read_series(db, fence.job_id)["lr"].steps == list(range(8))
    assert state_of(db, fence.job_id)["checkpoint_id"] == row.id
    assert get_checkpoint_row(db, OWNER, row.id) == row
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == [row]
    assert [event.data for event in list_events(db, OWNER, fence.job_id) if event.type == "checkpoint"] == [
        {"id": row.id, "step": 8, "kind": "last"},
    ]


def test_recording_one_twice_is_the_same(db: Database) -> None:
    fence = running(db)
    new = new_checkpoint(fence, 8)
    first = record_checkpoint(db, fence, new, [chunk("lr", 0, 8)], resumable=True)
    version = state_of(db, fence.job_id)["version"]
    assert record_checkpoint(db, fence, new, [chunk("lr", 0, 8)], resumable=True) == first
    assert state_of(db, fence.job_id)["version"] == version


def test_the_newest_keep_last_stay(db: Database) -> None:
    fence = running(db, checkpoints={"every": "5st", "keep_last": 2})
    for step in (5, 10, 15, 20):
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
    record_checkpoint(db, fence, new_checkpoint(fence, 20, kind="swa"), [], resumable=False)
    assert status_by_step(db) == {5: "doomed", 10: "doomed", 15: "good", 20: "good"}
    assert [(row.kind, row.step) for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [
        ("last", 15),
        ("last", 20),
        ("swa", 20),
    ]


@pytest.mark.parametrize(
    ("monitor", "values", "kept"),
    [
        # The two newest are 60 and 70 in any case.
        ("val.loss", [0.5, 0.2, 0.9, 0.2, 0.3, 0.8, 0.7], {20, 40, 60, 70}),
        ("val.accuracy", [0.5, 0.2, 0.9, 0.2, 0.3, 0.8, 0.7], {30, 60, 70}),  # 60 is both: among newest and best
        ("val.loss", [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], {10, 20, 60, 70}),
        ("val.loss", [None, 0.9, math.nan, math.inf, -math.inf, 0.95, 0.1], {20, 60, 70}),
        ("val.loss", [None] * 7, {60, 70}),
    ],
)
def test_the_best_stay_besides_the_newest(
    db: Database, monitor: str, values: list[float | None], kept: set[int]
) -> None:
    """Two of each. What has no finite value is never among the best, and of equal ones the oldest are."""
    fence = running(db, checkpoints={"every": "10st", "keep_last": 2, "keep_best": 2, "monitor": monitor})
    for step, value in zip(range(10, 80, 10), values, strict=True):
        metrics = {"val.loss": 1.0, "val.accuracy": 0.0, monitor: value} if value is not None else {}
        new = replace(new_checkpoint(fence, step), metrics=metrics)
        record_checkpoint(db, fence, new, [], resumable=True)
    record_checkpoint(db, fence, new_checkpoint(fence, 20, kind="best"), [], resumable=False)
    assert {step for step, status in status_by_step(db).items() if status == "good"} == kept
    listed = [row for row in list_checkpoint_rows(db, OWNER, fence.job_id) if row.kind == "last"]
    assert {row.step: row.metrics.get(monitor) for row in listed} == {step: values[step // 10 - 1] for step in kept}


def test_a_run_goes_on_from_the_newest_and_never_from_the_best(db: Database) -> None:
    """And when the newest are damaged, the best are places to fall back to as well."""
    fence = running(db, checkpoints={"every": "1st", "keep_last": 2, "keep_best": 1})
    rows = []
    for step, loss in ((1, 0.9), (2, 0.1), (3, 0.5), (4, 0.6), (5, 0.7)):
        new = replace(new_checkpoint(fence, step), metrics={"val.loss": loss})
        rows.append(record_checkpoint(db, fence, new, [], resumable=True))
    assert state_of(db, fence.job_id)["checkpoint_id"] == rows[4].id
    assert mark_corrupt(db, fence, rows[4].id) == rows[3]
    assert mark_corrupt(db, fence, rows[3].id) == rows[1]


def test_jobs_of_the_release_before_keep_the_newest(db: Database) -> None:
    """Their specs say nothing of the best."""
    fence = running(db)
    with db.write() as connection:
        spec = json.loads(connection.execute(select(job.c.spec)).scalar_one())
        spec["checkpoints"] = {"every": "5st", "keep_last": 3}
        connection.execute(update(job).values(spec=json.dumps(spec)))
    for step in (5, 10, 15, 20):
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
    assert status_by_step(db) == {5: "doomed", 10: "good", 15: "good", 20: "good"}


def test_the_newest_ends_of_cycles_stay(db: Database) -> None:
    fence = running(db, checkpoints={"keep_cycles": 2})
    for step in (5, 10, 20):
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind="cycle_end"), [], resumable=False)
    assert status_by_step(db, "cycle_end") == {5: "doomed", 10: "good", 20: "good"}


def test_who_goes_back_takes_back_what_came_later(db: Database) -> None:
    """Weights of any kind behind a new place to go on are of a past that is no more; what is damaged stays known."""
    fence = running(db)
    corrupt = record_checkpoint(db, fence, new_checkpoint(fence, 25), [], resumable=True)
    mark_corrupt(db, fence, corrupt.id)
    for step, kind in ((10, "last"), (15, "cycle_end"), (20, "last"), (20, "snapshot")):
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind=kind), [], resumable=kind == "last")
    again = record_checkpoint(db, fence, new_checkpoint(fence, 10), [], resumable=True)
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == [again]
    assert status_by_step(db) == {10: "good", 20: "doomed", 25: "corrupt"}
    assert state_of(db, fence.job_id)["checkpoint_id"] == again.id


def test_there_is_one_best(db: Database) -> None:
    """Whichever came last, also when an attempt goes on from before the best step of the one before it."""
    fence = running(db)
    for step in (4, 12, 8):
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind="best"), [], resumable=False)
    record_checkpoint(db, fence, new_checkpoint(fence, 9), [], resumable=True)
    assert status_by_step(db, "best") == {4: "doomed", 12: "doomed", 8: "good"}
    assert status_by_step(db) == {9: "good"}


def test_members_stay_as_many_as_the_ensemble_has(db: Database) -> None:
    """However many resumable checkpoints come and go; and a member that is written again is not counted twice."""
    fence = running(db, ensemble={"method": "checkpoints", "every": 4, "members": 3})
    for step in (4, 8, 12, 16, 12, 16):  # who goes on from behind 8 comes by 16 again
        record_checkpoint(db, fence, new_checkpoint(fence, step, kind="snapshot"), [], resumable=False)
        record_checkpoint(db, fence, new_checkpoint(fence, step), [], resumable=True)
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id) if row.kind == "snapshot"] == [8, 12, 16]
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id) if row.kind == "last"] == [12, 16]


def test_weights_alone_are_no_place_to_go_on(db: Database) -> None:
    fence = running(db)
    record_checkpoint(db, fence, new_checkpoint(fence, 9, kind="swa"), [], resumable=False)
    assert state_of(db, fence.job_id)["checkpoint_id"] is None


def test_a_later_attempt_replaces_what_it_writes_again(db: Database) -> None:
    """Killed between its SWA weights and the end, the job goes on from `last` and writes the SWA weights again."""
    fence = running(db)
    record_checkpoint(db, fence, new_checkpoint(fence, 9), [], resumable=True)
    record_checkpoint(db, fence, new_checkpoint(fence, 9, kind="swa"), [], resumable=False)
    give_back(db, fence, cause="worker lost", lost=True, max_losses=3)
    found = taken(db)
    assert found is not None
    again = Fence(fence.job_id, found.attempt)
    second = record_checkpoint(db, again, new_checkpoint(again, 9, kind="swa"), [], resumable=False)
    assert [row.id for row in list_checkpoint_rows(db, OWNER, fence.job_id) if row.kind == "swa"] == [second.id]


def test_corrupt_ones_are_listed_no_more(db: Database) -> None:
    fence = running(db)
    first = record_checkpoint(db, fence, new_checkpoint(fence, 5), [], resumable=True)
    second = record_checkpoint(db, fence, new_checkpoint(fence, 10), [], resumable=True)
    assert mark_corrupt(db, fence, second.id) == first
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == [first]
    with pytest.raises(NotFound):
        get_checkpoint_row(db, OWNER, second.id)
    warnings = [event.data for event in list_events(db, OWNER, fence.job_id) if event.type == "warning"]
    assert [(data["code"], data["checkpoint"]) for data in warnings] == [("checkpoint_corrupt", second.id)]


def test_an_old_one_found_corrupt_changes_nothing_else(db: Database) -> None:
    fence = running(db)
    first = record_checkpoint(db, fence, new_checkpoint(fence, 5), [chunk("lr", 0, 5)], resumable=True)
    second = record_checkpoint(db, fence, new_checkpoint(fence, 10), [], resumable=True)
    assert mark_corrupt(db, fence, first.id) == second
    assert state_of(db, fence.job_id)["checkpoint_id"] == second.id
    assert read_series(db, fence.job_id)["lr"].steps == [0, 1, 2, 3, 4]


def test_foreign_and_unknown_ones_do_not_exist(db: Database) -> None:
    fence = running(db)
    row = record_checkpoint(db, fence, new_checkpoint(fence, 5), [], resumable=True)
    for owner, checkpoint_id in (("bob", row.id), (OWNER, "ckpt_00000000000000000000000000")):
        with pytest.raises(NotFound):
            get_checkpoint_row(db, owner, checkpoint_id)
    for owner, job_id in (("bob", fence.job_id), (OWNER, "job_00000000000000000000000000")):
        with pytest.raises(NotFound):
            list_checkpoint_rows(db, owner, job_id)


def test_a_store_key_belongs_to_one_checkpoint(db: Database) -> None:
    fence = running(db)
    new = new_checkpoint(fence, 5)
    record_checkpoint(db, fence, new, [], resumable=True)
    with pytest.raises(Exception, match=r"(?i)unique"):
        record_checkpoint(db, fence, replace(new_checkpoint(fence, 6), key=new.key), [], resumable=True)
