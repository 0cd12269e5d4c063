"""The zygote alone, as a real process without torch: what it tells its launcher, and what it outlives."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.service import ROOT, until
from worker.exit_codes import MACHINE_FAILED
from worker.launcher import ProcessExit

SCRIPT = """
import os, signal, socket, sys, time
from worker import zygote

{change}
zygote.Zygote(socket.socket(fileno=int(sys.argv[1]))).serve_orders()
"""
STOPPED_AT_BIRTH = "zygote.Zygote._become_runner = lambda *_: os.kill(os.getpid(), signal.SIGSTOP)"
SLOW_TO_LEAD = """
setsid = os.setsid
os.setsid = lambda: (time.sleep(0.5), setsid())
"""
IDLE_RUNNER = "zygote.run_as_runner = lambda *_: time.sleep(60.0)"
NO_PIDFD = "del os.pidfd_open"
POOR = """
import errno
what = "WHAT"
real = getattr(os, what)

def refused(*arguments):
    if what == "open" and not str(arguments[0]).endswith("stderr.txt"):
        return real(*arguments)
    setattr(os, what, real)
    raise OSError(errno.ENOSPC, "No space left on device")

import types, worker
worker.runner = types.SimpleNamespace(run=lambda sock: 0)
setattr(os, what, refused)
"""


class ScriptedZygote:
    """A real zygote process without torch, some parts of which a script has changed."""

    def __init__(self, changes: list[str], stderr: Path) -> None:
        self._stderr = str(stderr)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(60.0)
        script = SCRIPT.format(change="\n".join(changes))
        fd = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen([sys.executable, "-c", script, str(fd)], pass_fds=[fd], cwd=ROOT)
        assert "ready" in self.hear()[0]

    def order(self, fd: int = 0) -> None:
        order = json.dumps({"runner": "1", "stderr": self._stderr, "devices": None}).encode()
        socket.send_fds(self._control, [order], [fd])

    def ping(self) -> None:
        self._control.send(b'{"ping": true}')

    def hear(self) -> tuple[dict[str, Any], list[int]]:
        """The next message, and the descriptors that came with it."""
        data, fds, _, _ = socket.recv_fds(self._control, 4096, 1)
        return json.loads(data), fds

    def wait_for_message(self) -> None:
        """Wait until there is one, and leave it unread."""
        assert select.select([self._control], [], [], 60.0)[0]

    def suspend(self) -> None:
        self._process.send_signal(signal.SIGSTOP)
        until("it has stopped", lambda: psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED)

    def end(self) -> int:
        self._control.close()
        self._process.send_signal(signal.SIGCONT)
        return self._process.wait(60.0)


@pytest.fixture
def scripted(tmp_path: Path) -> Iterator[Callable[..., ScriptedZygote]]:
    """Start a zygote with these changes."""
    made: list[ScriptedZygote] = []

    def start(*changes: str) -> ScriptedZygote:
        made.append(ScriptedZygote(list(changes), tmp_path / "stderr.txt"))
        return made[-1]

    yield start
    assert [each.end() for each in made] == [0] * len(made)


def test_a_child_that_is_stopped_at_birth_holds_up_nobody(scripted: Callable[..., ScriptedZygote]) -> None:
    """It leads no group yet, so that a signal to its group finds nobody."""
    zygote = scripted(STOPPED_AT_BIRTH, "zygote.START_SECONDS = 0.2")
    zygote.order()
    assert zygote.hear()[0]["runner"] == "1"
    assert zygote.hear()[0] == {"runner": "1", "status": signal.SIGKILL}


@pytest.mark.parametrize("what", ["pipe", "fork", "open"])
def test_a_zygote_outlives_what_its_machine_refuses(scripted: Callable[..., ScriptedZygote], what: str) -> None:
    """No descriptor, no process, no file for what the runner prints: an exit status tells the launcher of it."""
    zygote, statuses = scripted(POOR.replace("WHAT", what)), []
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(1 if what == "open" else 2):
            zygote.order(theirs.fileno())
            while "status" not in (message := zygote.hear()[0]):
                assert message["runner"] == "1"
            statuses.append(ProcessExit.from_wait_status(message["status"]).code)
    assert statuses == [MACHINE_FAILED, 0][: len(statuses)]


def test_a_zygote_that_waits_for_a_child_answers_pings(scripted: Callable[..., ScriptedZygote]) -> None:
    """Or its launcher would take it for one that hangs, and kill it with everything that it has forked."""
    zygote = scripted(STOPPED_AT_BIRTH, "zygote.START_SECONDS = 2.0")
    zygote.order()
    zygote.ping()
    assert zygote.hear()[0] == {"pong": True}
    assert zygote.hear()[0]["runner"] == "1"


def test_a_runner_is_told_of_when_it_leads_its_group(scripted: Callable[..., ScriptedZygote]) -> None:
    """A signal to its group before that would be lost."""
    zygote = scripted(SLOW_TO_LEAD, IDLE_RUNNER)
    zygote.order()
    pid = zygote.hear()[0]["pid"]
    assert os.getpgid(pid) == pid
    os.killpg(pid, signal.SIGKILL)
    assert zygote.hear()[0] == {"runner": "1", "status": signal.SIGKILL}


@pytest.mark.parametrize(("change", "count"), [("", 1), (NO_PIDFD, 0)])
def test_a_runner_is_told_of_with_its_pidfd_where_there_are_any(
    scripted: Callable[..., ScriptedZygote], change: str, count: int
) -> None:
    zygote = scripted(IDLE_RUNNER, change)
    zygote.order()
    message, fds = zygote.hear()
    assert len(fds) == count
    os.kill(message["pid"], signal.SIGKILL)
    for fd in fds:
        assert select.select([fd], [], [], 10.0)[0] == [fd]
        os.close(fd)
    assert zygote.hear()[0]["status"] == signal.SIGKILL


def test_processes_show_what_they_are(scripted: Callable[..., ScriptedZygote]) -> None:
    """A health check reads /proc/<pid>/comm: a zygote has its name once it can fork, and no runner has that name."""
    zygote = scripted(IDLE_RUNNER)
    zygote.order()
    runner = psutil.Process(zygote.hear()[0]["pid"])
    parent = runner.parent()
    assert parent is not None
    assert (parent.name(), runner.name()) == ("basin-zygote", "basin-runner")
    runner.kill()


def test_a_zygote_ends_in_order_with_its_launcher(scripted: Callable[..., ScriptedZygote]) -> None:
    """Also when the launcher has not read everything, which the kernel tells as a reset. Their fixture ends it."""
    zygote = scripted(IDLE_RUNNER)
    zygote.ping()
    zygote.wait_for_message()
    zygote.suspend()
