"""Starting runners: forked by the zygote, or exec'd where fork is no option. No torch on this side."""

# ruff: noqa: N818 - the names say what happened

import contextlib
import itertools
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from worker import lifeline
from worker.runneruser import RunnerUser

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 64 << 10
FIRST_BACKOFF: Final = 0.2  # seconds before a zygote that died is started again; doubles up to the last one
LAST_BACKOFF: Final = 30.0


class LaunchFailed(Exception):
    """No runner could be started."""


@dataclass(frozen=True)
class Exit:
    """How a process ended: by itself with a code, or killed by a signal."""

    code: int | None = None
    signal: int | None = None

    @classmethod
    def from_wait_status(cls, status: int) -> "Exit":
        if os.WIFSIGNALED(status):
            return cls(signal=os.WTERMSIG(status))
        return cls(code=os.WEXITSTATUS(status))

    def __str__(self) -> str:
        if self.signal is None:
            return f"exit status {self.code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(self.signal).name}"
        return f"killed by signal {self.signal}"


class RunnerProcess:
    """One runner seen from its supervisor: the pipe, signals to its group, and its end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._changed = threading.Condition()
        self._pid: int | None = None
        self._exit: Exit | None = None
        self._pending: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._pid

    def started(self, pid: int) -> None:
        """Told by the launcher; signals that came before the pid was known go out now."""
        with self._changed:
            self._pid = pid
            for signum in self._pending:
                lifeline.kill_group(pid, signum)
            self._changed.notify_all()

    def ended(self, how: Exit) -> None:
        with self._changed:
            self._exit = self._exit or how
            self._changed.notify_all()

    def wait(self, timeout: float) -> Exit | None:
        """Its exit, or None when it still lives after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._exit is not None, timeout)
            return self._exit

    def terminate(self) -> None:
        """Ask it to end: the runner finishes its step and reports `cancelled`."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL its whole group; also ends a runner that is stopped or deaf to SIGTERM."""
        self._signal(signal.SIGKILL)

    def _signal(self, signum: int) -> None:
        with self._changed:
            if self._exit is not None:
                return
            if self._pid is None:
                self._pending.append(signum)
            else:
                lifeline.kill_group(self._pid, signum)


class Launcher(Protocol):
    """What supervisors need: a way to start a runner."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def wait_ready(self, timeout: float) -> bool:
        """Whether a runner could be started now, after at most `timeout` seconds."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        """Start a runner that prints into `stderr` and sees only the GPU `devices`; raises LaunchFailed."""


class ExecLauncher:
    """Every runner is a new process: 2 s slower, for macOS and whatever else cannot fork after loading torch."""

    def start(self) -> None:
        """Nothing to keep alive."""

    def stop(self) -> None:
        """Nothing to end: runners die with their pipes."""

    def wait_ready(self, timeout: float) -> bool:
        return True

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        ours, theirs = socket.socketpair()
        environment = lifeline.clean_environment(os.environ)
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = devices
        with theirs, stderr.open("ab") as out:
            arguments = [sys.executable, "-m", "worker.runner", str(theirs.fileno()), str(os.getpid())]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        runner = RunnerProcess(ours)
        runner.started(process.pid)
        threading.Thread(target=_reap, args=(process, runner), name="runner-reaper", daemon=True).start()
        return runner


def _reap(process: subprocess.Popen[bytes], runner: RunnerProcess) -> None:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    lifeline.kill_group(process.pid, signal.SIGKILL)  # what it left behind, while its number is still taken
    code = process.wait()
    runner.ended(Exit(signal=-code) if code < 0 else Exit(code=code))


class ZygoteLauncher:
    """Keeps one zygote alive and orders runners from it.

    One thread starts every zygote and lives as long as the worker, because the kernel's death signal follows the
    *thread* that started a process. Orders go out from any thread, one datagram each.
    """

    def __init__(self, user: RunnerUser | None = None) -> None:
        """`user` is whom the zygote and its runners run as, if not as we do."""
        self._user = user
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._runners: dict[str, RunnerProcess] = {}
        self._ids = itertools.count(1)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="zygote-keeper", daemon=True)
        self.pid: int | None = None

    def start(self) -> None:
        self._keeper.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            if self._control is not None:
                self._control.shutdown(socket.SHUT_RDWR)
        if self._keeper.ident is not None:
            self._keeper.join()

    def wait_ready(self, timeout: float) -> bool:
        return self._ready.wait(timeout)

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        if not self._ready.is_set():
            raise LaunchFailed("the zygote is not ready")
        ours, theirs = socket.socketpair()
        runner = RunnerProcess(ours)
        with theirs, self._lock:
            name = str(next(self._ids))
            order = json.dumps({"runner": name, "stderr": str(stderr), "devices": devices}).encode()
            self._runners[name] = runner
            try:
                if self._control is None:
                    raise BrokenPipeError("the zygote is gone")
                socket.send_fds(self._control, [order], [theirs.fileno()])
            except OSError as error:
                del self._runners[name]
                ours.close()
                raise LaunchFailed(f"the zygote took no order: {error}") from error
        return runner

    def _keep(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            born = time.monotonic()
            how = self._one_life()
            if self._stopping.is_set():
                return
            backoff = FIRST_BACKOFF if time.monotonic() - born > LAST_BACKOFF else min(2 * backoff, LAST_BACKOFF)
            log.error("the zygote ended (%s); starting another in %.1f s", how, backoff)
            self._stopping.wait(backoff)

    def _one_life(self) -> Exit:
        """Start a zygote, hear it out, and bury it with its runners."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "worker.zygote", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=lifeline.clean_environment(os.environ) | ({"HOME": self._user.home} if self._user else {}),
                pass_fds=[theirs.fileno()],
                **(self._user.popen if self._user else {}),
            )
        self.pid = process.pid
        with ours:
            with self._lock:
                self._control = ours
                if self._stopping.is_set():
                    ours.shutdown(socket.SHUT_RDWR)
            for message in _messages(ours):
                self._hear(message)
            self._ready.clear()
            process.kill()
            code = process.wait()
            how = Exit(signal=-code) if code < 0 else Exit(code=code)
            self._bury()
        return how

    def _hear(self, message: dict[str, Any]) -> None:
        if "ready" in message:
            log.info("the worker is ready: its zygote %d can fork", message["ready"])
            self._ready.set()
            return
        with self._lock:
            runner = self._runners.get(message["runner"])
            if "status" in message:
                self._runners.pop(message["runner"], None)
        if runner is None:
            return
        if "pid" in message:
            runner.started(message["pid"])
        else:
            runner.ended(Exit.from_wait_status(message["status"]))

    def _bury(self) -> None:
        """Runners die with their zygote (SIGKILL from the kernel), and nobody is left to report it."""
        with self._lock:
            self._control = None
            orphans = list(self._runners.values())
            self._runners.clear()
        for runner in orphans:
            runner.kill()
            runner.ended(Exit(signal=signal.SIGKILL))


def _messages(control: socket.socket) -> Iterator[dict[str, Any]]:
    """What the zygote says, until it is gone."""
    while True:
        try:
            data = control.recv(MESSAGE_BYTES)
        except OSError:
            return
        if not data:
            return
        yield json.loads(data)


def best_launcher(user: RunnerUser | None = None) -> Launcher:
    """Fork where a process that has loaded torch survives it: Linux."""
    return ZygoteLauncher(user) if sys.platform == "linux" else ExecLauncher()
