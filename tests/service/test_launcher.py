"""Runners as real processes: forked by the zygote and exec'd, ended by themselves, killed, and orphaned."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from core.process import ORPHANED
from core.recipe.assignment import Assignment
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan
from tests.support.service import ROOT, gone, until
from worker import child_process, wire
from worker.exit_codes import CRASHED
from worker.launcher import ExecLauncher, Launcher, LaunchFailed, ProcessExit, RunnerProcess, ZygoteLauncher

SPEC = {
    "model": {"name": "mlp", "hidden": [16]},
    "data": {"name": "iris"},
    "optimizer": {"name": "adam", "lr": 0.01},
    "epochs": 20,
}
FOREVER = SPEC | {"epochs": 1_000_000}


@pytest.fixture(scope="module")
def zygote() -> Iterator[ZygoteLauncher]:
    launcher = ZygoteLauncher()
    launcher.start()
    assert launcher.wait_ready(60.0)
    yield launcher
    launcher.stop()


@pytest.fixture(params=["fork", "exec"])
def launcher(request: pytest.FixtureRequest) -> Launcher:
    if request.param == "exec":
        return ExecLauncher()
    zygote: ZygoteLauncher = request.getfixturevalue("zygote")
    return zygote


@pytest.fixture
def order(datasets: Callable[[str], Path], tmp_path: Path) -> Callable[[Launcher, dict[str, Any]], RunnerProcess]:
    """Launch a runner and send it an assignment."""

    def send(launcher: Launcher, body: dict[str, Any]) -> RunnerProcess:
        spec = parse_job(json.dumps(body).encode()).resolved()
        scratch = tmp_path / "out"
        scratch.mkdir(exist_ok=True)
        assignment = Assignment(
            job="job_x",
            attempt=1,
            spec=spec,
            plan=resolve_plan(spec, "cpu"),
            dataset=datasets("iris"),
            scratch=scratch,
        )
        runner = launcher.launch(tmp_path / "stderr.txt", "")
        runner.sock.sendall(wire.pack_frame("assignment", "job_x", {"assignment": assignment.dump()}))
        return runner

    return send


def heard(runner: RunnerProcess, kind: str) -> dict[str, Any]:
    """The next frame of this type."""
    while frame := wire.receive_frame(runner.sock):
        if frame["type"] == kind:
            return frame
    raise AssertionError(f"the pipe ended before a {kind} frame")


def test_an_assignment_comes_back_as_events_and_an_exit(
    zygote: ZygoteLauncher, order: Callable[..., RunnerProcess], tmp_path: Path
) -> None:
    runner = order(zygote, SPEC)
    assert heard(runner, "started")["job"] == "job_x"
    ended = heard(runner, "ended")
    assert (ended["outcome"], ended["progress"]["step"]) == ("succeeded", ended["progress"]["steps"])
    assert runner.wait(10.0) == ProcessExit(code=0)
    assert (tmp_path / "stderr.txt").read_text() == ""
    runner.sock.close()


def test_forked_and_executed_runners_compute_the_same_bits(
    zygote: ZygoteLauncher, order: Callable[..., RunnerProcess], tmp_path: Path
) -> None:
    digests = []
    for launcher in (zygote, ExecLauncher()):
        runner = order(launcher, SPEC)
        digests.append(heard(runner, "checkpoint")["files"])
        heard(runner, "ended")
        runner.wait(10.0)
        runner.sock.close()
        (tmp_path / "out").rename(tmp_path / f"out-{len(digests)}")
    assert digests[0]["weights"]["sha256"] == digests[1]["weights"]["sha256"]
    assert digests[0]["state"]["sha256"] == digests[1]["state"]["sha256"]


def test_sigterm_ends_the_step_and_says_so(launcher: Launcher, order: Callable[..., RunnerProcess]) -> None:
    """Until then memory that runs out kills the runner before whoever started it."""
    runner = order(launcher, FOREVER)
    heard(runner, "progress")
    assert is_first_to_be_killed_for_memory(runner)
    runner.terminate()
    assert heard(runner, "ended")["outcome"] == "cancelled"
    assert runner.wait(10.0) == ProcessExit(code=0)
    runner.sock.close()


def test_a_stop_order_writes_a_checkpoint_first(zygote: ZygoteLauncher, order: Callable[..., RunnerProcess]) -> None:
    runner = order(zygote, FOREVER)
    heard(runner, "progress")
    runner.sock.sendall(wire.pack_frame("stop", "", {"mode": "checkpoint"}))
    written = heard(runner, "checkpoint")
    ended = heard(runner, "ended")
    assert ended["outcome"] == "stopped"
    assert (written["step"], written["resumable"]) == (ended["progress"]["step"], True)
    runner.wait(10.0)
    runner.sock.close()


def test_sigkill_is_told_with_its_signal(zygote: ZygoteLauncher, order: Callable[..., RunnerProcess]) -> None:
    runner = order(zygote, FOREVER)
    heard(runner, "progress")
    runner.kill()
    assert runner.wait(10.0) == ProcessExit(signal=signal.SIGKILL)
    runner.kill()  # nobody is there any more, and that is fine
    runner.sock.close()


def test_a_runner_without_a_supervisor_ends_at_once(launcher: Launcher, order: Callable[..., RunnerProcess]) -> None:
    """The end of the pipe is the end of the runner, in the middle of whatever it computes."""
    runner = order(launcher, FOREVER)
    heard(runner, "progress")
    runner.sock.close()
    assert runner.wait(2.0) == ProcessExit(code=ORPHANED)


def test_a_stopped_runner_can_be_killed(zygote: ZygoteLauncher, order: Callable[..., RunnerProcess]) -> None:
    runner = order(zygote, FOREVER)
    heard(runner, "progress")
    assert runner.pid is not None
    os.kill(runner.pid, signal.SIGSTOP)
    runner.terminate()
    assert runner.wait(0.3) is None
    runner.kill()
    assert runner.wait(10.0) == ProcessExit(signal=signal.SIGKILL)
    runner.sock.close()


@pytest.mark.parametrize(
    ("assignment", "complaint"), [({"kind": "train", "job": 3}, "UnreadableSpec"), ({"job": 3}, "no kind of job")]
)
def test_nonsense_on_the_pipe_shows_in_the_exit_and_in_stderr(
    zygote: ZygoteLauncher, tmp_path: Path, assignment: dict[str, Any], complaint: str
) -> None:
    runner = zygote.launch(tmp_path / "stderr.txt", "")
    runner.sock.sendall(wire.pack_frame("assignment", "job_x", {"assignment": assignment}))
    how = runner.wait(30.0)
    assert how is not None
    assert how.code not in {None, 0}
    assert complaint in child_process.read_tail(tmp_path / "stderr.txt")
    runner.sock.close()


def test_a_stopped_zygote_hides_no_exit(zygote: ZygoteLauncher, order: Callable[..., RunnerProcess]) -> None:
    """The runner crashes while nobody can reap it: its pidfd tells that it has ended, its dead body of what."""
    runner = order(zygote, FOREVER)
    heard(runner, "progress")
    assert zygote.pid is not None
    assert runner.pid is not None
    os.kill(zygote.pid, signal.SIGSTOP)
    try:
        os.kill(runner.pid, signal.SIGSEGV)
        assert runner.wait(8.0) == ProcessExit(signal=signal.SIGSEGV)
    finally:
        os.kill(zygote.pid, signal.SIGCONT)
    runner.sock.close()
    again = order(zygote, SPEC)
    assert heard(again, "ended")["outcome"] == "succeeded"
    assert again.wait(10.0) == ProcessExit(code=0)
    again.sock.close()


def test_a_zygote_that_hangs_is_replaced(order: Callable[..., RunnerProcess]) -> None:
    """Without pidfds. A runner that ends before says how; one that goes down with the zygote says with whom."""
    launcher = ZygoteLauncher(silence_seconds=2.5, pidfds=False)
    launcher.start()
    assert launcher.wait_ready(60.0)
    runners = [order(launcher, FOREVER) for _ in range(2)]
    for runner in runners:
        heard(runner, "progress")
    hung, processes = launcher.pid, [psutil.Process(runner.pid) for runner in runners]
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    runners[0].kill()
    assert runners[0].wait(30.0) == ProcessExit(signal=signal.SIGKILL)
    assert runners[1].wait(30.0) == ProcessExit(signal=signal.SIGKILL, zygote_killed=True)
    assert all(gone(process, 2.0) for process in processes)
    until("another zygote", lambda: launcher.pid != hung and launcher.wait_ready(0.1))
    again = order(launcher, SPEC)
    assert heard(again, "ended")["outcome"] == "succeeded"
    for runner in (*runners, again):
        runner.sock.close()
    launcher.stop()


STOPS_ITSELF = """
import os, signal
from worker.child_process import RunningClock
clock = RunningClock(0.25)
os.kill(os.getpid(), signal.SIGSTOP)
print(clock.read() <= 0.25)
"""


def test_time_in_which_a_process_was_stopped_does_not_count() -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPS_ITSELF], stdout=subprocess.PIPE, cwd=ROOT)
    asleep = psutil.Process(process.pid)
    until("it has stopped", lambda: asleep.status() == psutil.STATUS_STOPPED)
    time.sleep(0.5)
    asleep.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60.0)[0] == b"True\n"


def test_an_exit_status_needs_no_disk(zygote: ZygoteLauncher, tmp_path: Path) -> None:
    """What the runner prints is lost, and that is all."""
    runner = zygote.launch(Path("/dev/full"), "")
    runner.sock.sendall(wire.pack_frame("assignment", "job_x", {"assignment": {"job": 3}}))
    assert runner.wait(30.0) == ProcessExit(code=CRASHED)
    runner.sock.close()


def is_first_to_be_killed_for_memory(runner: RunnerProcess) -> bool:
    own = int(Path("/proc/self/oom_score_adj").read_text())
    return int(Path(f"/proc/{runner.pid}/oom_score_adj").read_text()) == min(1000, own + 500)


def test_runners_are_killed_for_memory_before_whoever_started_them(
    zygote: ZygoteLauncher, order: Callable[..., RunnerProcess]
) -> None:
    """An exec'd one too: the test of SIGTERM looks."""
    runner = order(zygote, FOREVER)
    heard(runner, "progress")
    assert is_first_to_be_killed_for_memory(runner)
    runner.kill()
    assert runner.wait(10.0) == ProcessExit(signal=signal.SIGKILL)
    runner.sock.close()


def test_a_zygote_that_dies_takes_its_runners_along_and_is_replaced(
    order: Callable[..., RunnerProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASIN_DATABASE_URL", "postgresql://user:s3cr3t@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    launcher = ZygoteLauncher()
    launcher.start()
    with pytest.raises(LaunchFailed):
        launcher.launch(Path(os.devnull), "")
    assert launcher.wait_ready(60.0)
    assert launcher.pid is not None
    first = psutil.Process(launcher.pid)
    check_that_it_is_poor_and_single_threaded(first)
    runner = order(launcher, FOREVER)
    heard(runner, "progress")
    assert runner.pid is not None
    process = psutil.Process(runner.pid)
    begun = time.monotonic()
    first.kill()
    assert runner.wait(5.0) == ProcessExit(signal=signal.SIGKILL)
    assert gone(process, 1.0)
    assert time.monotonic() - begun < 2.0
    until("another zygote", lambda: launcher.pid != first.pid and launcher.wait_ready(0.1))
    again = order(launcher, SPEC)
    assert heard(again, "ended")["outcome"] == "succeeded"
    again.sock.close()
    runner.sock.close()
    launcher.stop()


def check_that_it_is_poor_and_single_threaded(zygote: psutil.Process) -> None:
    """One thread, or a fork would copy locks that nobody holds; and none of our settings or credentials."""
    assert zygote.num_threads() == 1
    environment = zygote.environ()
    assert "s3cr3t" not in "".join(environment.values())
    assert not [name for name in environment if name.startswith("BASIN_")]
