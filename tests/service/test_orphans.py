"""Runners whose zygote is dead: each has ended when its process is gone, not before."""

import os
import signal
import socket
import subprocess
import sys
import threading

from tests.support.service import until
from worker.launcher import ProcessExit, RunnerProcess, _end_when_gone

KILLED = ProcessExit(signal=signal.SIGKILL)


def living() -> tuple[RunnerProcess, "subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    ours, theirs = socket.socketpair()
    theirs.close()
    runner = RunnerProcess(ours)
    runner.set_pid(process.pid)
    return runner, process


def test_a_runner_that_lives_on_without_its_zygote_has_not_ended() -> None:
    """Else the next one would find its memory taken. A neighbour that is gone is not waited with."""
    (one, first), (other, second) = living(), living()
    try:
        thread = threading.Thread(target=_end_when_gone, args=([one, other], KILLED), daemon=True)
        thread.start()
        os.kill(second.pid, signal.SIGKILL)  # nobody reaps it: dead is dead
        assert other.wait(20.0) == KILLED
        os.kill(first.pid, signal.SIGSTOP)
        assert one.wait(0.3) is None
        one.kill()
        assert one.wait(20.0) == KILLED
        thread.join(20.0)
        assert not thread.is_alive()
    finally:
        for runner, process in ((one, first), (other, second)):
            runner.sock.close()
            process.kill()
            process.wait()


def test_one_that_never_had_a_pid_has_ended() -> None:
    ours, theirs = socket.socketpair()
    runner = RunnerProcess(ours)
    with ours, theirs:
        threading.Thread(target=_end_when_gone, args=([runner], KILLED), daemon=True).start()
        assert until("it has ended", lambda: runner.wait(1.0), 20.0) == KILLED
