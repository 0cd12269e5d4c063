"""Recorder and heart on a real database: what is written, when it is held, and when it is refused."""

import errno
import hashlib
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from core.db.session import Database
from core.db.tables import event
from core.errors import Unavailable
from core.jobs.attempt.fence import Fence, Fenced
from core.jobs.attempt.finish import give_back
from core.jobs.checkpoints.records import list_checkpoint_rows
from core.jobs.events.record import list_events
from core.jobs.metrics.chunks import read_series, record_points
from core.jobs.queries import get_job_view
from core.jobs.verbs import request_cancel
from core.lifecycle import Desired
from core.store.base import Digest
from core.store.local import LocalStore
from tests.support.databases import POSTGRESQL_IS_SLOW
from tests.support.jobs import OWNER, state_of
from tests.support.service import until
from worker import wire
from worker.backlog import Backlog
from worker.heartbeat import AttemptAbandoned, Heartbeat
from worker.recorder import Recorder

pytestmark = POSTGRESQL_IS_SLOW


class FullStore(LocalStore):
    """A store whose disk is full while `full` says so."""

    full = True
    refused = 0

    def put_file(self, path: Path, key: str) -> Digest:
        if self.full:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().put_file(path, key)


recorder_of = partial(Recorder, full_seconds=0.0)  # a store that is full is believed at once


def points(**values: list[tuple[int, float]]) -> bytes:
    columns = {
        name.replace("_", "."): ([step for step, _ in pairs], [value for _, value in pairs], [0.0] * len(pairs))
        for name, pairs in values.items()
    }
    return wire.pack_frame("points", "j", {"series": columns})[4:]


def checkpoint(folder: Path, step: int, kind: str = "last", manifest: dict[str, Any] | None = None) -> bytes:
    """A checkpoint frame with its files in a folder, as the engine leaves them."""
    folder = folder / f"{step}-{kind}"
    folder.mkdir(parents=True)
    files = {}
    for role, name in (("weights", "weights.safetensors"), ("manifest", "manifest.json")):
        content = f"{role} of step {step}".encode()
        (folder / name).write_bytes(content)
        files[role] = {"name": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    fields: dict[str, Any] = {"kind": kind, "step": step, "epoch": 1, "folder": str(folder), "files": files}
    return wire.pack_frame(
        "checkpoint", "j", {**fields, "metrics": {}, "manifest": manifest or {}, "resumable": kind == "last"}
    )[4:]


def found(db: Database, fence: Fence, name: str = "lr") -> list[tuple[int, float]]:
    points = read_series(db, fence.job_id)[name]
    return list(zip(points.steps, points.values, strict=True))


def warnings(db: Database, fence: Fence) -> list[str]:
    with db.read() as connection:
        query = select(event.c.data).where(event.c.job_id == fence.job_id, event.c.type == "warning")
        return [data["code"] for data in connection.execute(query).scalars()]


def test_what_was_said_is_written_in_its_order(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """Points before a checkpoint are its past: taking the job back to it leaves exactly these."""
    backlog = Backlog(tmp_path / "spill")
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, tmp_path)
    backlog.put(points(lr=[(0, 0.1), (1, 0.2)]))
    backlog.put(checkpoint(tmp_path, 2))
    backlog.put(points(lr=[(2, 0.3)]))
    backlog.put(checkpoint(tmp_path, 2, "swa"))
    backlog.put(points(lr=[(3, 0.4)]))
    recorder.start()
    rest = recorder.close()
    assert recorder.failure is None
    assert [(row.kind, row.step) for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [("last", 2), ("swa", 2)]
    assert not (tmp_path / "2-last").exists()  # uploaded, and no longer needed here
    assert found(db, fence)[:3] == [(0, 0.1), (1, 0.2), (2, 0.3)]
    assert [(chunk.after_step, list(chunk.points.steps)) for chunk in rest] == [(2, [2, 3])]


@pytest.mark.parametrize("full", [False, True])
def test_a_rollback_takes_back_what_came_behind_the_mark(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path, full: bool
) -> None:
    """Points that are written and points that wait, behind a mark that was stored or not; later checkpoints go too."""
    backlog, store = Backlog(tmp_path / "spill"), FullStore(tmp_path / "store")
    store.full = full
    recorder = recorder_of(heart_of(fence), store, backlog, None, tmp_path)
    recorder.start()
    backlog.put(points(lr=[(0, 0.1), (1, 0.1)], val_loss=[(2, 5.0)]))
    backlog.put(checkpoint(tmp_path, 2))
    backlog.put(points(lr=[(2, 0.2)], val_loss=[(3, 6.0)]))
    backlog.put(checkpoint(tmp_path, 3))
    backlog.put(points(lr=[(3, 0.3)]))
    until(
        "the later points are written", lambda: read_series(db, fence.job_id).get("lr") and len(found(db, fence)) == 4
    )
    backlog.put(points(lr=[(4, 0.4)]))
    backlog.put(wire.pack_frame("rollback", "j", {"step": 2, "message": "the loss became NaN"})[4:])
    until("the run is back", lambda: "rolled_back" in warnings(db, fence))
    store.full = False
    backlog.put(checkpoint(tmp_path, 2))
    backlog.put(points(lr=[(2, 0.5), (3, 0.5)], val_loss=[(3, 1.0)]))
    rest = recorder.close()
    record_points(db, fence, rest)
    assert recorder.failure is None
    assert found(db, fence) == [(0, 0.1), (1, 0.1), (2, 0.5), (3, 0.5)]
    assert found(db, fence, "val.loss") == [(2, 5.0), (3, 1.0)]
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [2]
    said = [each.data for each in list_events(db, OWNER, fence.job_id) if each.data.get("code") == "rolled_back"]
    assert said == [{"code": "rolled_back", "message": "the loss became NaN", "step": 2}]


def test_a_store_that_is_full_costs_a_checkpoint_and_nothing_else(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """The training goes on, the older checkpoint stays in force, and the job's events say what happened."""
    backlog, store = Backlog(tmp_path / "spill"), FullStore(tmp_path / "store")
    recorder = recorder_of(heart_of(fence), store, backlog, None, tmp_path)
    recorder.start()
    backlog.put(points(lr=[(0, 0.1)]))
    backlog.put(checkpoint(tmp_path, 1))
    until("the failure is noted", lambda: warnings(db, fence))
    assert warnings(db, fence) == ["checkpoint_failed"]
    assert recorder.missing == {"last"}
    store.full = False
    backlog.put(points(lr=[(1, 0.2)]))
    backlog.put(checkpoint(tmp_path, 2))
    recorder.close()
    assert recorder.missing == set()
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [2]
    assert found(db, fence) == [(0, 0.1), (1, 0.2)]


def test_a_store_that_is_full_for_a_moment_costs_nothing(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    backlog, store = Backlog(tmp_path / "spill"), FullStore(tmp_path / "store")
    recorder = recorder_of(heart_of(fence), store, backlog, None, tmp_path, full_seconds=60.0)
    recorder.start()
    backlog.put(checkpoint(tmp_path, 1))
    until("it has been tried again", lambda: store.refused > 1)
    store.full = False
    recorder.close()
    assert (recorder.failure, recorder.missing, warnings(db, fence)) == (None, set(), [])
    assert [row.step for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [1]


def test_what_the_runner_could_not_write_is_an_event_and_no_loss(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """The run may come back to that step: what was measured before it stays then."""
    backlog = Backlog(tmp_path / "spill")
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, tmp_path)
    recorder.start()
    backlog.put(points(lr=[(0, 0.1), (1, 0.1)]))
    fields = {"kind": "last", "step": 2, "message": "No space left on device", "resumable": True}
    backlog.put(wire.pack_frame("checkpoint_failed", "j", fields)[4:])
    backlog.put(points(lr=[(2, 9.0)]))
    backlog.put(wire.pack_frame("rollback", "j", {"step": 2, "message": "the loss became NaN"})[4:])
    backlog.put(points(lr=[(2, 0.2)]))
    record_points(db, fence, recorder.close())
    assert (recorder.failure, recorder.missing, recorder.has_checkpoint) == (None, set(), False)
    assert found(db, fence) == [(0, 0.1), (1, 0.1), (2, 0.2)]
    message = "the checkpoint at step 2 could not be written: No space left on device"
    said = [each.data for each in list_events(db, OWNER, fence.job_id) if each.data.get("code") == "checkpoint_failed"]
    assert said == [{"code": "checkpoint_failed", "message": message, "step": 2, "kind": "last"}]


def test_a_file_that_changed_on_disk_is_no_checkpoint(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    backlog = Backlog(tmp_path / "spill")
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, tmp_path)
    backlog.put(checkpoint(tmp_path, 1))
    (tmp_path / "1-last" / "weights.safetensors").write_bytes(b"weights of step 7")
    recorder.start()
    recorder.close()
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == []
    assert warnings(db, fence) == ["checkpoint_failed"]


@pytest.mark.parametrize("named", ["aside", "out/../aside", "out/..", "out/link", "out/1-last/deeper", "a file"])
def test_only_what_lies_in_the_attempts_own_folder_is_a_checkpoint(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path, named: str
) -> None:
    """A runner that was taken over would have the worker read and remove what it may not touch itself."""
    out, aside, backlog = tmp_path / "out", tmp_path / "aside", Backlog(tmp_path / "spill")
    frame = wire.unpack_payload(checkpoint(out, 1))
    shutil.copytree(out / "1-last", aside)
    shutil.copytree(out / "1-last", out / "1-last" / "deeper")
    (out / "link").symlink_to(aside)
    if named == "a file":
        frame["files"]["weights"]["name"] = "../../aside/weights.safetensors"
    else:
        frame["folder"] = f"{tmp_path}/{named}"
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, out)
    backlog.put(wire.pack_frame("checkpoint", "j", frame)[4:])
    recorder.start()
    recorder.close()
    assert (recorder.failure or "").startswith("BadFrame: ")
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == []
    assert sorted(path.name for path in aside.iterdir()) == ["manifest.json", "weights.safetensors"]
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_no_results_without_their_weights(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """A resume from a checkpoint with results would never write the mean again."""
    backlog, store = Backlog(tmp_path / "spill"), FullStore(tmp_path / "store")
    recorder = recorder_of(heart_of(fence), store, backlog, None, tmp_path)
    recorder.start()
    backlog.put(checkpoint(tmp_path, 2, "swa"))
    until("the failure is noted", lambda: recorder.missing)
    store.full = False
    backlog.put(checkpoint(tmp_path, 1))
    backlog.put(checkpoint(tmp_path, 2, manifest={"results": {"base": {}}}))
    recorder.close()
    assert [(row.kind, row.step) for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [("last", 1)]
    assert recorder.missing == {"swa", "last"}
    assert recorder.machine_failed, "a full disk is why, also of what came later"
    assert recorder.has_checkpoint


def test_each_member_counts(db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path) -> None:
    """A member that is lost is not made good by another; one that the run no longer has is not missed."""
    backlog, store = Backlog(tmp_path / "spill"), FullStore(tmp_path / "store")
    recorder = recorder_of(heart_of(fence), store, backlog, None, tmp_path)
    recorder.start()
    backlog.put(checkpoint(tmp_path, 2, "snapshot"))
    until("the failure is noted", lambda: recorder.missing == {"snapshot 2"})
    store.full = False
    backlog.put(checkpoint(tmp_path, 4, "snapshot"))
    backlog.put(checkpoint(tmp_path, 5, manifest={"results": {"base": {}}}))
    until("the results are refused", lambda: recorder.missing == {"snapshot 2", "last"})
    backlog.put(checkpoint(tmp_path, 6))
    recorder.close()
    assert recorder.missing == set()
    assert [(row.kind, row.step) for row in list_checkpoint_rows(db, OWNER, fence.job_id)] == [
        ("snapshot", 4),
        ("last", 6),
    ]


def test_after_the_job_was_taken_away_nothing_is_written(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    backlog, heart = Backlog(tmp_path / "spill"), heart_of(fence)
    recorder = recorder_of(heart, LocalStore(tmp_path / "store"), backlog, None, tmp_path)
    give_back(db, fence, cause="taken away", lost=False, max_losses=3)
    backlog.put(points(lr=[(0, 0.1)]))
    backlog.put(checkpoint(tmp_path, 1))
    recorder.start()
    recorder.close()
    assert heart.fenced
    assert read_series(db, fence.job_id) == {}
    assert list_checkpoint_rows(db, OWNER, fence.job_id) == []


def test_a_bug_in_a_frame_shows_as_a_failure(fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path) -> None:
    backlog = Backlog(tmp_path / "spill")
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, tmp_path)
    backlog.put(b'{"type": "points", "job": "j"}')
    recorder.start()
    recorder.close()
    assert recorder.failure == "KeyError: 'series'"


def test_beats_carry_progress_out_and_wishes_back(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat]
) -> None:
    heart = heart_of(fence)
    heart.start()
    heart.report_progress({"step": 5})
    until("the progress is there", lambda: get_job_view(db, OWNER, fence.job_id).progress == {"step": 5})
    before = state_of(db, fence.job_id)["lease_until"]
    until("the lease grows", lambda: state_of(db, fence.job_id)["lease_until"] > before)
    assert heart.desired is Desired.RUN
    request_cancel(db, OWNER, fence.job_id)
    until("the wish is heard", lambda: heart.desired is Desired.CANCEL)


def test_a_heart_learns_that_its_job_is_gone(db: Database, fence: Fence, heart_of: Callable[..., Heartbeat]) -> None:
    heart = heart_of(fence)
    heart.start()
    give_back(db, fence, cause="taken away", lost=False, max_losses=3)
    until("it is fenced", lambda: heart.fenced)
    with pytest.raises(Fenced):
        heart.retry_write(lambda: None)


def test_a_passing_failure_is_tried_again_and_a_bug_is_not(fence: Fence, heart_of: Callable[..., Heartbeat]) -> None:
    heart, answers = heart_of(fence), iter([Unavailable("away"), Unavailable("away"), None])

    def write() -> str:
        if (error := next(answers)) is not None:
            raise error
        return "written"

    assert heart.retry_write(write) == "written"
    with pytest.raises(ZeroDivisionError):
        heart.retry_write(lambda: 1 // 0)


def test_writes_are_held_without_a_fresh_beat(fence: Fence, heart_of: Callable[..., Heartbeat]) -> None:
    """0.75 of a lease after the last good beat somebody else may own the job; the next good beat lets the write go."""
    heart = heart_of(fence, lease_seconds=0.4)
    while heart.silence_seconds() <= 0.3:
        time.sleep(0.01)
    written = threading.Event()
    writer = threading.Thread(target=lambda: heart.retry_write(written.set))
    writer.start()
    assert not written.wait(0.3)
    heart.start()
    assert written.wait(5.0)
    writer.join()


def test_an_attempt_is_given_up_when_the_database_stays_away(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise Unavailable("away")

    monkeypatch.setattr("worker.heartbeat.record_heartbeat", away)
    heart = heart_of(fence, outage_seconds=0.5)
    heart.start()
    until("it gives up", lambda: heart.given_up)
    with pytest.raises(AttemptAbandoned):
        heart.retry_write(lambda: None)


def test_a_log_without_end_has_one(
    db: Database, fence: Fence, heart_of: Callable[..., Heartbeat], tmp_path: Path
) -> None:
    """Long lines are cut, and a job that talks too much is cut off, with a word about it."""
    backlog = Backlog(tmp_path / "spill")
    recorder = recorder_of(heart_of(fence), LocalStore(tmp_path / "store"), backlog, None, tmp_path, most_lines=3)
    for message in ("x" * 5000, "two", "three", "four", "five"):
        backlog.put(wire.pack_frame("log", "j", {"level": "info", "message": message})[4:])
    recorder.start()
    recorder.close()
    told = [found.data for found in list_events(db, OWNER, fence.job_id, types=("log",))]
    assert [len(one["message"]) for one in told[:3]] == [4098, 3, 5]
    assert told[3:] == [{"level": "warning", "message": "the log of this attempt ends here, after 3 lines"}]
