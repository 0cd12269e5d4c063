"""How long a run takes from end to end, told while it goes on: a start-up is no part of the rate."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from core.jobs.attempt.heartbeat import WHOLE_RUN
from worker import wire
from worker.backlog import Backlog
from worker.heartbeat import Heartbeat
from worker.launcher import RunnerProcess
from worker.recorder import Recorder
from worker.watch import RunnerWatch, RunTimeEstimator

STEPS = 200
LENGTH = 4  # bytes before a frame's payload


def test_a_uniform_run_after_a_long_start_is_told_right_from_the_first_tenth_on() -> None:
    """30 s until all is built, a first step of 5 s, then 0.1 s each. Reports come together every half a second."""
    tempo = RunTimeEstimator()
    tempo.record_start(0, 30.0)
    done_at = [35.0 + 0.1 * step for step in range(STEPS)]
    for step, at in enumerate(done_at, 1):
        heard = 0.5 * -(-at // 0.5)
        whole = tempo.estimate_seconds(step, step / STEPS, heard)
        if step >= STEPS / 10:
            assert whole is not None
            left = whole * (1 - step / STEPS)
            assert left == pytest.approx(done_at[-1] - at, rel=0.2, abs=0.6), step


def test_one_that_goes_on_is_judged_by_what_it_does_itself() -> None:
    """100 steps came before it; it makes two a second."""
    tempo = RunTimeEstimator()
    tempo.record_start(100, 10.0)
    assert tempo.estimate_seconds(100, 0.5, 10.0) is None
    assert tempo.estimate_seconds(102, 0.51, 11.0) == pytest.approx(100.0)
    assert tempo.estimate_seconds(120, 0.6, 20.0) == pytest.approx(100.0)


def test_few_steps_count_from_when_all_was_built() -> None:
    """Of ten steps the first report is a tenth of the run already."""
    tempo = RunTimeEstimator()
    assert tempo.estimate_seconds(1, 0.1, 50.0) is None  # nobody said when it began
    tempo.record_start(0, 40.0)
    assert tempo.estimate_seconds(1, 0.1, 50.0) == pytest.approx(100.0)
    assert tempo.estimate_seconds(2, 0.2, 58.0) == pytest.approx(80.0)


def test_one_that_went_back_begins_anew() -> None:
    tempo = RunTimeEstimator()
    tempo.record_start(0, 0.0)
    for step in (1, 2, 3, 4):
        tempo.estimate_seconds(step, step / 10, float(step))
    tempo.estimate_seconds(1, 0.1, 104.0)
    assert tempo.estimate_seconds(2, 0.2, 105.0) == pytest.approx(10.0)


def test_it_goes_out_with_the_progress(tmp_path: Path) -> None:
    """From the frames of a runner to what the heart carries."""
    told: list[dict[str, Any]] = []
    heart = SimpleNamespace(settings=SimpleNamespace(stall_seconds=60.0), report=told.append)
    recorder = cast("Recorder", SimpleNamespace())
    watch = RunnerWatch(
        cast("RunnerProcess", SimpleNamespace()), cast("Heartbeat", heart), Backlog(tmp_path / "spill"), recorder
    )
    watch._on_frame(wire.pack_frame("started", "job", {"step": 0, "parameters": 3, "environment": {}})[LENGTH:], 30.0)
    for step in (1, 2, 3):
        watch._on_frame(
            wire.pack_frame("progress", "job", {"step": step, "fraction": step / 4})[LENGTH:], 30.0 + 2 * step
        )
    assert told == [{"step": step, "fraction": step / 4, WHOLE_RUN: 8.0} for step in (1, 2, 3)]
