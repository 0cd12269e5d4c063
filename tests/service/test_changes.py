"""What owners change and delete, what they look for, and why jobs wait."""

from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from core.db.session import Database, database_now
from core.db.tables import checkpoint, event, job, job_label, job_state, metric_chunk
from core.db.tables import worker as workers
from core.errors import Conflict, InvalidSpec, NotFound, PreconditionFailed
from core.jobs.attempt.finish import TerminalState, finish_job
from core.jobs.changes import mark_job_deleted, update_job
from core.jobs.checkpoints.records import get_checkpoint_row, record_checkpoint
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.health.workers import (
    SlotUsage,
    WorkerReport,
    delete_silent_workers,
    delete_worker,
    list_worker_views,
    live_workers,
    report_worker,
    total_slots,
)
from core.jobs.queries import get_job_view, job_version, list_job_views
from core.jobs.queue.estimates import estimate_start, list_queued_jobs, wait_reason
from core.jobs.queue.submit import create_job
from core.jobs.search import JobSearch
from core.lifecycle import Status
from core.settings import Limits, Settings
from core.store.local import LocalStore
from tests.support.jobs import OWNER, chunk, new_checkpoint, running, set_state, small_spec, state_of, submitted, taken

STEP = 60.0


def found(db: Database, **wanted: object) -> list[str]:
    return [view.id for view in list_job_views(db, OWNER, JobSearch(**wanted))[0]]  # type: ignore[arg-type]


def test_jobs_are_found_by_status_metadata_and_text(db: Database) -> None:
    blue = submitted(db, name="Blue Net", metadata={"team": "vision", "run": "1"})
    red = submitted(db, name="red_net 100%", metadata={"team": "vision", "run": "2"})
    plain = submitted(db)
    create_job(db, small_spec(name="blue", metadata={"team": "vision"}), owner="bob")
    taken(db)
    assert found(db, statuses=["running"]) == [blue]
    assert found(db, statuses=["running", "queued"]) == [plain, red, blue]
    assert found(db, metadata={"team": "vision"}) == [red, blue]
    assert found(db, metadata={"team": "vision", "run": "2"}) == [red]
    assert found(db, metadata={"team": "visio"}) == found(db, metadata={"vision": "team"}) == []
    assert found(db, text="NET") == [red, blue]
    assert found(db, text="d_n") == [red], "no sign is a wildcard"
    assert found(db, text="%") == [red]
    assert found(db, text="_") == [plain, red, blue], "every id has one"
    assert found(db, text=plain[-12:].upper()) == [plain]
    assert found(db, text="net", statuses=["queued"], metadata={"run": "2"}) == [red]
    for attack in ("' OR 1=1 --", "\\", "%' OR '1'='1"):
        assert found(db, text=attack) == found(db, metadata={attack: attack}) == []


def test_an_edit_shows_and_can_be_searched(db: Database) -> None:
    job_id = submitted(db, name="old", metadata={"team": "a", "draft": "yes"})
    version = job_version(db, OWNER, job_id)
    changes = {"name": "new", "metadata": {"team": "b", "draft": None, "note": ""}}
    update_job(db, OWNER, job_id, changes, age_step=STEP)
    view = get_job_view(db, OWNER, job_id)
    assert (view.name, view.spec["name"], view.version) == ("new", "new", version + 1)
    assert view.spec["metadata"] == {"team": "b", "note": ""}
    assert found(db, text="old") == found(db, metadata={"draft": "yes"}) == []
    assert found(db, text="new", metadata={"team": "b"}) == [job_id]
    update_job(db, OWNER, job_id, changes, age_step=STEP)
    assert job_version(db, OWNER, job_id) == version + 1, "saying it twice is the same"
    update_job(db, OWNER, job_id, {"name": None}, age_step=STEP)
    assert get_job_view(db, OWNER, job_id).name is None
    claimed = taken(db)
    assert claimed is not None
    assert claimed.spec == small_spec(name="old", metadata={"team": "a", "draft": "yes"}), "the spec is what was sent"


def test_too_much_metadata_changes_nothing(db: Database) -> None:
    job_id = submitted(db, metadata={f"k{number}": "v" for number in range(16)})
    with pytest.raises(InvalidSpec):
        update_job(db, OWNER, job_id, {"metadata": {"one": "more"}}, age_step=STEP)
    update_job(db, OWNER, job_id, {"metadata": {"one": "more", "k0": None}}, age_step=STEP)
    assert len(get_job_view(db, OWNER, job_id).spec["metadata"]) == 16


def test_a_new_priority_moves_a_queued_job(db: Database) -> None:
    """Ten points are worth ten minutes of waiting: the younger job overtakes, and falls back again."""
    older, younger = submitted(db), submitted(db)
    before = state_of(db, younger)["rank"]
    update_job(db, OWNER, younger, {"priority": 10}, age_step=STEP)
    assert state_of(db, younger)["rank"] == pytest.approx(before - 600.0, abs=1e-3)
    assert get_job_view(db, OWNER, younger).spec["priority"] == 10
    assert [one.job_id for one in list_queued_jobs(db, OWNER, {})[0]] == [younger, older]
    update_job(db, OWNER, younger, {"priority": -1}, age_step=STEP)
    assert state_of(db, younger)["rank"] == pytest.approx(before + 60.0, abs=1e-3)
    first = taken(db)
    assert first is not None
    assert first.job_id == older


def test_edits_are_refused_to_strangers_to_the_late_and_to_the_ended(db: Database) -> None:
    fence = running(db, name="kept")
    with pytest.raises(NotFound):
        update_job(db, "bob", fence.job_id, {"name": "mine"}, age_step=STEP)
    with pytest.raises(PreconditionFailed):
        update_job(db, OWNER, fence.job_id, {"name": "late"}, age_step=STEP, fits=lambda version: version == 1)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED))
    with pytest.raises(Conflict) as refused:
        update_job(db, OWNER, fence.job_id, {"priority": 1, "name": "half"}, age_step=STEP)
    assert refused.value.extra == {"current_status": "succeeded"}
    assert get_job_view(db, OWNER, fence.job_id).name == "kept"
    update_job(db, OWNER, fence.job_id, {"name": "after"}, age_step=STEP)
    assert get_job_view(db, OWNER, fence.job_id).name == "after"


def test_a_deleted_job_is_gone_at_once_and_its_files_soon(db: Database, tmp_path: Path) -> None:
    """Two phases: a kill between them leaves rows that still say what is to be removed."""
    store = LocalStore(tmp_path / "store")
    fence, other = running(db, metadata={"a": "b"}), submitted(db, metadata={"a": "b"})
    with pytest.raises(Conflict) as refused:
        mark_job_deleted(db, OWNER, fence.job_id)
    assert refused.value.extra == {"current_status": "running"}
    (tmp_path / "w").write_bytes(b"w")
    rows = [new_checkpoint(fence, step) for step in (5, 10)]
    for row in rows:
        store.put_file(tmp_path / "w", f"{row.key}/weights.safetensors")
        record_checkpoint(db, fence, row, [chunk("lr", row.step - 5, 5, row.step - 5)], resumable=True)
    finish_job(db, fence, TerminalState(Status.SUCCEEDED))
    with pytest.raises(NotFound):
        mark_job_deleted(db, "bob", fence.job_id)
    mark_job_deleted(db, OWNER, fence.job_id)
    for call in (get_job_view, mark_job_deleted):
        with pytest.raises(NotFound):
            call(db, OWNER, fence.job_id)
    with pytest.raises(NotFound):
        get_checkpoint_row(db, OWNER, rows[0].id)
    assert [view.id for view in list_job_views(db, OWNER)[0]] == [other]
    care = GarbageCollector(db, store, Settings(home=tmp_path))
    assert care.delete_removed_jobs() == 0, "not before its files"
    assert (care.delete_pending_checkpoints(), care.delete_removed_jobs()) == (2, 1)
    assert list(store.list("jobs/")) == []
    with db.read() as connection:
        left = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (job, job_state, job_label, checkpoint, metric_chunk)
        ]
        ids = set(connection.execute(select(event.c.job_id)).scalars())
    assert (left, ids) == ([1, 1, 1, 0, 0], {other})


def test_workers_report_are_lost_and_forgotten(db: Database) -> None:
    fence = running(db)
    report_worker(db, WorkerReport("host:cpu0", {"cpu": SlotUsage(2, 1)}))
    report_worker(db, WorkerReport("away", {"cpu": SlotUsage(1, 1), "gpu": SlotUsage(4, 4)}))
    (away, here) = list_worker_views(db, OWNER)
    assert (here.id, here.slots, here.jobs) == ("host:cpu0", {"cpu": SlotUsage(2, 1)}, (fence.job_id,))
    assert list_worker_views(db, "bob")[1].jobs == ()
    assert total_slots(live_workers([away, here], 12.0)) == {"cpu": SlotUsage(3, 2), "gpu": SlotUsage(4, 4)}
    with db.write() as connection:
        aged = update(workers).where(workers.c.id == "away")
        connection.execute(aged.values(seen_at=database_now() - 20.0, started_at=database_now() - 20.0))
    assert total_slots(live_workers(list_worker_views(db, OWNER), 12.0)) == {"cpu": SlotUsage(2, 1)}
    report_worker(db, WorkerReport("away", {"cpu": SlotUsage(1, 0)}))
    again = list_worker_views(db, OWNER)[0]
    assert again.slots == {"cpu": SlotUsage(1, 0)}
    assert again.seen_at - again.started_at == pytest.approx(20.0, abs=5.0), "a report is no new start"
    delete_worker(db, "host:cpu0")
    assert delete_silent_workers(db) == 0
    for silent in (200.0, -3600.0):  # in the future: the clock was set back, and nobody reports any more
        report_worker(db, WorkerReport("away", {"cpu": SlotUsage(1, 0)}))
        with db.write() as connection:
            connection.execute(update(workers).values(seen_at=database_now() - 60.0))
        assert delete_silent_workers(db) == 0
        with db.write() as connection:
            connection.execute(update(workers).values(seen_at=database_now() - silent))
        assert delete_silent_workers(db) == 1
        assert list_worker_views(db, OWNER) == []


@pytest.mark.parametrize(
    ("needs", "ahead", "slots", "running_most", "code", "words"),
    [
        ("any", 0, {}, (0, None), "no_worker", "No worker is there; start one with `basin worker`."),
        ("any", 0, {"cpu": SlotUsage(0, 0)}, (0, None), "no_worker", "No worker"),
        ("gpu", 3, {"cpu": SlotUsage(2, 2)}, (0, None), "no_slot", "No worker has a gpu slot; there are cpu slots."),
        ("any", 0, {"cpu": SlotUsage(2, 1)}, (2, 2), "owner_limit", "2 of your jobs run, and 2 may."),
        (
            "gpu",
            1,
            {"cpu": SlotUsage(2, 2), "gpu": SlotUsage(1, 0)},
            (0, 2),
            "slots_busy",
            "The only gpu slot is busy; one job",
        ),
        (
            "any",
            5,
            {"cpu": SlotUsage(2, 0), "gpu": SlotUsage(1, 0)},
            (0, None),
            "slots_busy",
            "All 3 slots are busy; 5 jobs go",
        ),
        ("cpu", 2, {"cpu": SlotUsage(2, 2)}, (0, None), "others_first", "2 jobs go first."),
        ("cpu", 1, {"cpu": SlotUsage(2, 2)}, (0, None), "starting", "A slot is free"),
    ],
)
def test_why_a_job_waits(  # noqa: PLR0917 - the columns of the table above
    needs: str, ahead: int, slots: dict[str, SlotUsage], running_most: tuple[int, int | None], code: str, words: str
) -> None:
    told = wait_reason(needs, ahead, slots, running=running_most[0], most=running_most[1])
    assert told.code == code
    assert told.message.startswith(words)


def test_when_a_job_starts_is_a_guess_from_the_last_runs() -> None:
    """Runs of 60 s. Two busy slots, four ahead: half a run until slots are free, then two rounds: 150 s."""
    busy = wait_reason("cpu", 4, {"cpu": SlotUsage(2, 0)})
    assert estimate_start(4, SlotUsage(2, 0), 60.0, busy) == 150.0
    assert estimate_start(0, SlotUsage(2, 1), 60.0, wait_reason("cpu", 0, {"cpu": SlotUsage(2, 1)})) == 0.0
    assert estimate_start(4, SlotUsage(2, 0), None, busy) is None
    assert estimate_start(0, SlotUsage(0, 0), 60.0, wait_reason("gpu", 0, {"cpu": SlotUsage(2, 2)})) is None


def test_the_queue_of_an_owner(db: Database) -> None:
    done = running(db)
    finish_job(db, done, TerminalState(Status.SUCCEEDED))
    with db.write() as connection:
        connection.execute(update(job).where(job.c.id == done.job_id).values(finished_at=job.c.started_at + 30.0))
    create_job(db, small_spec(priority=5), owner="bob")
    limits = Limits(running_jobs=1)
    mine = [create_job(db, small_spec(name=f"n{n}"), owner=OWNER, limits=limits).job_id for n in range(3)]
    waiting, total = list_queued_jobs(db, OWNER, {"cpu": SlotUsage(1, 0)}, limit=2)
    assert total == 3
    assert [(one.job_id, one.name, one.ahead, one.needs) for one in waiting] == [
        (mine[0], "n0", 1, "any"),
        (mine[1], "n1", 2, "any"),
    ]
    assert [one.eta_seconds for one in waiting] == [45.0, 75.0]
    taken(db)
    taken(db)
    waiting, total = list_queued_jobs(db, OWNER, {"cpu": SlotUsage(3, 1)})
    assert [(one.reason.code, one.eta_seconds) for one in waiting] == [("owner_limit", None)] * total
    set_state(db, mine[2], desired="cancel")
    assert [one.reason.code for one in list_queued_jobs(db, OWNER, {"cpu": SlotUsage(3, 1)})[0]] == [
        "owner_limit",
        "not_wanted",
    ]
    assert list_queued_jobs(db, "carol", {}) == ([], 0)
