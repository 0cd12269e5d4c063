"""A machine whose disk is full, or that has no descriptor left, costs a checkpoint and nothing else."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import pytest

from core.engine import loop
from core.engine.checkpoints import writer
from core.engine.events import CheckpointFailed, CheckpointWritten, Event, RolledBack, RunProgress, StopRequest
from core.machine_failure import ERRNOS
from core.recipe.data import DataSpec
from tests.train.looks import Look, kept
from tests.train.recipes import RECIPES
from tests.train.runs import Train, Watcher, digests, job

FULL = range(15, 40)  # steps at which nothing is written: the marks at 18, 27 and 36, and what lies beside them
FOR_EVER = range(1000)


@dataclass
class Disk:
    """A disk that takes the bytes, but does not have them when it is asked to flush."""

    error: int = errno.ENOSPC
    full: bool = False
    tries_left: int | None = None  # so many refusals until there is room again
    refused: int = 0
    fsync: Callable[[int], None] = os.fsync

    def flush(self, file: int) -> None:
        if self.full:
            self.refused += 1
            if self.tries_left is not None:
                self.tries_left -= 1
                self.full = self.tries_left > 0
            raise OSError(self.error, os.strerror(self.error))
        self.fsync(file)


@dataclass
class Filler(Watcher):
    """Fills the disk while the run is at these steps; asks for `wish` once it was refused."""

    disk: Disk = field(default_factory=Disk)
    full_at: range = range(0)
    wish: StopRequest | None = None

    def emit(self, event: Event) -> None:
        super().emit(event)
        if self.wish and isinstance(event, CheckpointFailed):
            self.request, self.stop_after = self.wish, self.steps + 1

    def stop_request(self) -> StopRequest | None:
        self.disk.full = self.steps + 2 in self.full_at and self.disk.tries_left != 0  # while the next step is made
        return super().stop_request()

    def failed(self) -> list[CheckpointFailed]:
        return [event for event in self.events if isinstance(event, CheckpointFailed)]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    monkeypatch.setattr(os, "fsync", found.flush)
    monkeypatch.setattr(writer, "PAUSE_SECONDS", 0.0)
    return found


@pytest.mark.parametrize("seconds", [60.0, 0.0])
def test_marks_that_cannot_be_written_change_nothing(run: Train, disk: Disk, tmp_path: Path, seconds: float) -> None:
    """Averages, the best weights, members, the digest chain; also where a checkpoint follows every step."""
    spec = RECIPES["everything"]
    ending, whole = run(spec, checkpoint_seconds=seconds)
    found, watcher = run(spec, Filler(disk=disk, full_at=FULL), checkpoint_seconds=seconds)
    assert (found.outcome, found.results) == ("succeeded", ending.results)
    assert watcher.series() == whole.series()
    assert isinstance(watcher, Filler)
    assert {each.kind for each in watcher.failed()} >= {"best", "last" if seconds == 0.0 else "snapshot"}
    assert {each.message for each in watcher.failed()} == {"No space left on device"}
    written, expected = watcher.checkpoints(), whole.checkpoints()
    assert written.keys() == {step for step in expected if step not in FULL}
    for step, each in written.items():
        assert digests(each) == digests(expected[step])
        assert each.manifest["digest"] == expected[step].manifest["digest"]
    there = {path.name for path in (tmp_path / "2").iterdir()}
    assert there == {Path(each.folder).name for each in watcher.events if isinstance(each, CheckpointWritten)}


def test_a_rollback_behind_a_mark_that_is_not_on_disk(run: Train, disk: Disk) -> None:
    """The mark is in memory all the same; what is written later has the digests of an undisturbed run."""
    schedule = {"name": "multistep", "milestones": ["20st"], "gamma": 2.0**90}
    spec = job(schedule=schedule, rollback={"factor": 2.0**-90}, checkpoints={"every": "8st"}, epochs=4)
    ending, whole = run(spec)
    found, watcher = run(spec, Filler(disk=disk, full_at=range(10, 24)))
    assert (found.outcome, found.results) == (ending.outcome, ending.results)
    assert watcher.series() == whole.series()
    last = max(whole.checkpoints())
    assert watcher.checkpoints()[last].manifest["digest"] == whole.checkpoints()[last].manifest["digest"]
    assert isinstance(watcher, Filler)
    assert 16 in {each.step for each in watcher.failed()}


def test_the_end_waits_for_the_disk(run: Train, disk: Disk) -> None:
    """Three refusals, then there is room; each piece is told of once, and a sign of life comes with each try."""
    spec = job(swa=True, early_stopping={"patience": 1000})
    ending, whole = run(spec)
    disk.tries_left = 3
    found, watcher = run(spec, Filler(disk=disk, full_at=range(25, 99)))
    assert isinstance(watcher, Filler)
    assert (found.outcome, found.results, disk.refused) == ("succeeded", ending.results, 3)
    assert [(each.kind, each.step) for each in watcher.failed()] == [("swa", 24)]
    assert watcher.checkpoints()[24].manifest["digest"] == whole.checkpoints()[24].manifest["digest"]
    assert [each for each in watcher.events if isinstance(each, RunProgress)][-3:] == [watcher.progress()[-1]] * 3


def test_a_checkpoint_that_somebody_waits_for_is_tried_again(run: Train, disk: Disk) -> None:
    """Also at a mark whose first try has failed: its link of the chain counts once."""
    spec = job(checkpoints={"every": "8st"})
    _, whole = run(spec)
    disk.tries_left = 3
    stopped, first = run(spec, Filler(disk=disk, full_at=range(8, 30), wish="checkpoint"))
    assert (stopped.outcome, stopped.progress["step"], disk.refused) == ("stopped", 8, 3)
    assert first.checkpoints()[8].manifest["digest"] == whole.checkpoints()[8].manifest["digest"]
    _, second = run(spec, resume=first.checkpoints()[8])
    assert second.checkpoints()[24].manifest["digest"] == whole.checkpoints()[24].manifest["digest"]


@pytest.mark.parametrize("number", sorted(ERRNOS))
def test_an_end_that_is_never_written_is_the_machines_failure(
    run: Train, disk: Disk, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(writer, "TRIES", 4)
    disk.error = number
    ending, watcher = run(job(), Filler(disk=disk, full_at=FOR_EVER))
    assert (ending.outcome, disk.refused) == ("failed", 4)
    assert ending.error is not None
    assert (ending.error["code"], ending.error["message"]) == ("machine_failed", os.strerror(number))
    assert watcher.checkpoints() == {}


def test_nobody_waits_for_the_disk_once_the_job_is_cancelled(run: Train, disk: Disk) -> None:
    ending, _ = run(job(), Filler(disk=disk, full_at=FOR_EVER, wish="cancel"))
    assert (ending.outcome, disk.refused) == ("failed", 1)
    spec = job(early_stopping={"patience": 1000}, checkpoints={"every": "8st"})
    ending, watcher = run(spec, Filler(disk=disk, full_at=range(8, 99), wish="cancel"))
    assert (ending.outcome, ending.progress["step"]) == ("cancelled", 8)
    assert watcher.checkpoints("best") == {}


def test_another_error_of_the_operating_system_is_a_bug(run: Train, disk: Disk) -> None:
    disk.error = errno.ENOTDIR
    with pytest.raises(NotADirectoryError):
        run(job(checkpoints={"every": "8st"}), Filler(disk=disk, full_at=range(8, 9)))


def test_an_analysis_goes_on_too(run: Train, look: Look, disk: Disk) -> None:
    """A tile that cannot be kept is computed again if need be; the result is waited for."""
    spec = job()
    pair = spec, run(spec)[1].checkpoints()[24]
    whole = look([pair], kind="landscape")
    disk.tries_left = 3
    found = look([pair], Filler(disk=disk, full_at=FOR_EVER), keep_seconds=0.0, kind="landscape")
    assert isinstance(found.watcher, Filler)
    assert {each.kind for each in found.watcher.failed()} == {"last", "result"}
    assert found.numbers == whole.numbers
    assert all(each.tobytes() == whole.arrays[name].tobytes() for name, each in found.arrays.items())
    disk.tries_left = 3
    stopped = look([pair], Filler(disk=disk, full_at=FOR_EVER, stop_after=1), kind="landscape")
    (written,) = stopped.watcher.checkpoints().values()
    assert stopped.ended.outcome == "stopped"
    assert look([pair], resume=kept(written), kind="landscape").numbers == whole.numbers


def test_a_disk_that_cannot_be_read_is_no_fault_of_the_data(
    run: Train, monkeypatch: pytest.MonkeyPatch, datasets: Callable[[DataSpec], Path]
) -> None:
    """Neither the dataset nor a checkpoint is called bad."""
    _, first = run(job(), Watcher(stop_after=4))
    opened = Path.open

    def broken(path: Path, *mode: Any, **options: Any) -> Any:
        if path.name == broken_name:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *mode, **options)

    monkeypatch.setattr(Path, "open", broken)
    written = first.checkpoints()[4]
    for broken_name in ("weights.safetensors", "state.safetensors", datasets(job().data).name):
        ending, _ = run(job(), resume=written)
        assert ending.error is not None
        assert (ending.outcome, ending.error["code"]) == ("failed", "machine_failed"), broken_name


def test_memory_that_the_system_lacks_is_not_memory_that_the_job_wants(
    run: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> NoReturn:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(loop, "build_training_run", refused)
    ending, _ = run(job())
    assert ending.error is not None
    assert ending.error["code"] == "machine_failed"


def test_a_mark_that_fails_again_after_a_rollback_is_told_of_again(run: Train, disk: Disk) -> None:
    """Whoever records the points has to know that a segment ends there: the run may come back to it."""
    schedule = {"name": "multistep", "milestones": ["20st"], "gamma": 2.0**90}
    spec = job(schedule=schedule, rollback={"factor": 2.0**-40}, checkpoints={"every": "8st"}, epochs=4)
    _, watcher = run(spec, Filler(disk=disk, full_at=range(10, 30)))
    told = [
        type(each) for each in watcher.events if isinstance(each, CheckpointFailed | RolledBack) and each.step == 16
    ]
    assert told[:3] == [CheckpointFailed, RolledBack, CheckpointFailed]
