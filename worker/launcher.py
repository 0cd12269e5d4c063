"""Starts runners: forked by the zygote, or exec'd where fork is not possible. This process never imports torch."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from worker import child_process
from worker.exit_monitor import REPORT_SECONDS, ExitMonitor
from worker.runner_user import RunnerUser

log = logging.getLogger(__name__)

MESSAGE_BYTES: Final = 64 << 10
FIRST_BACKOFF: Final = 0.2  # seconds before a zygote that died is started again; doubles up to the last one
LAST_BACKOFF: Final = 30.0
ORPHAN_TICK: Final = 0.05
PING_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 10.0  # a zygote that leaves pings unanswered for this time is replaced


class LaunchFailed(Exception):
    """No runner could be started."""


@dataclass(frozen=True)
class ProcessExit:
    """How a process ended: with an exit code, or killed by a signal.

    `zygote_killed`: it died with its zygote, which this worker had killed because it hung.
    """

    code: int | None = None
    signal: int | None = None
    zygote_killed: bool = False

    @classmethod
    def from_wait_status(cls, status: int) -> "ProcessExit":
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
    """One runner as its supervisor uses it: the pipe, signals to its process group, and its exit."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._changed = threading.Condition()
        self._pid: int | None = None
        self._exit: ProcessExit | None = None
        self._pending: list[int] = []

    @property
    def pid(self) -> int | None:
        return self._pid

    def set_pid(self, pid: int) -> None:
        """Called by the launcher; sends the signals that were requested before the pid was known."""
        with self._changed:
            self._pid = pid
            for signum in self._pending:
                child_process.kill_group(pid, signum)
            self._changed.notify_all()

    def set_exit(self, how: ProcessExit) -> None:
        with self._changed:
            self._exit = self._exit or how
            self._changed.notify_all()

    def wait(self, timeout: float) -> ProcessExit | None:
        """Its exit, or None when it still runs after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._exit is not None, timeout)
            return self._exit

    def terminate(self) -> None:
        """Ask it to end: the runner finishes its step and reports `cancelled`."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL its whole group; also ends a runner that is stopped or ignores SIGTERM."""
        self._signal_group(signal.SIGKILL)

    def _signal_group(self, signum: int) -> None:
        with self._changed:
            if self._exit is not None:
                return
            if self._pid is None:
                self._pending.append(signum)
            else:
                child_process.kill_group(self._pid, signum)


class Launcher(Protocol):
    """What supervisors need: a way to start a runner."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def wait_ready(self, timeout: float) -> bool:
        """Whether a runner could be started now, after at most `timeout` seconds."""

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        """Start a runner that prints into `stderr` and sees only the GPU `devices`; raises LaunchFailed."""


class ExecLauncher:
    """Every runner is a new process: 2 s slower, for platforms that cannot fork after loading torch (macOS).

    `module` is run with a descriptor and the id of this process, as worker.runner is.
    """

    def __init__(self, module: str = "worker.runner") -> None:
        self._module = module

    def start(self) -> None:
        """There is no zygote to start."""

    def stop(self) -> None:
        """There is no zygote to stop: runners end with their pipes."""

    def wait_ready(self, timeout: float) -> bool:
        return True

    def launch(self, stderr: Path, devices: str | None) -> RunnerProcess:
        ours, theirs = socket.socketpair()
        environment = child_process.clean_environment(os.environ)
        if devices is not None:
            environment["CUDA_VISIBLE_DEVICES"] = devices
        with theirs, stderr.open("ab") as out:
            arguments = [sys.executable, "-m", self._module, str(theirs.fileno()), str(os.getpid())]
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
        runner.set_pid(process.pid)
        threading.Thread(target=wait_and_report, args=(process, runner), name="runner-reaper", daemon=True).start()
        return runner


def wait_and_report(process: subprocess.Popen[bytes], runner: RunnerProcess) -> None:
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    child_process.kill_group(
        process.pid, signal.SIGKILL
    )  # its children, while the zombie still holds the group's number
    code = process.wait()
    runner.set_exit(ProcessExit(signal=-code) if code < 0 else ProcessExit(code=code))


class ZygoteLauncher:
    """Keeps one zygote running and orders runners from it.

    One thread starts every zygote and runs as long as the worker, because the kernel sends the death signal when the
    *thread* that started a process ends. Any thread may send an order, one datagram each. The same thread pings the
    zygote, and kills one that has not answered for `silence_seconds` of this process's own running time. It also
    detects exits that a hanging zygote does not report. `pidfds=False` is for kernels and sandboxes without them.
    """

    module: ClassVar[str] = "worker.zygote"

    def __init__(
        self, silence_seconds: float = SILENCE_SECONDS, *, user: RunnerUser | None = None, pidfds: bool = True
    ) -> None:
        """`user` is the user of the zygote and its runners; None: the user of this process."""
        self._user = user
        self._silence_seconds = silence_seconds
        self._ping_seconds = min(PING_SECONDS, silence_seconds / 4)
        self._pidfds = pidfds
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._runners: dict[str, RunnerProcess] = {}
        self._ids = itertools.count(1)
        self._ready = threading.Event()
        self._stopping = threading.Event()
        self._zygote_thread = threading.Thread(target=self._zygote_loop, name="zygote-launcher", daemon=True)
        self.pid: int | None = None

    def start(self) -> None:
        self._zygote_thread.start()

    def stop(self) -> None:
        self._stopping.set()
        with self._lock:
            if self._control is not None:
                self._control.shutdown(socket.SHUT_RDWR)
        if self._zygote_thread.ident is not None:
            self._zygote_thread.join()

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

    def _zygote_loop(self) -> None:
        backoff = FIRST_BACKOFF
        while not self._stopping.is_set():
            started_at = time.monotonic()
            how = self._run_zygote()
            if self._stopping.is_set():
                return
            backoff = FIRST_BACKOFF if time.monotonic() - started_at > LAST_BACKOFF else min(2 * backoff, LAST_BACKOFF)
            log.error("the zygote ended (%s); starting another in %.1f s", how, backoff)
            self._stopping.wait(backoff)

    def _run_zygote(self) -> ProcessExit:
        """Start a zygote, receive its messages until it ends or hangs, and end it with its runners."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(0.0)  # an order to a zygote that hangs must not block the thread that sends it
        with theirs:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", self.module, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                env=child_process.clean_environment(os.environ) | ({"HOME": self._user.home} if self._user else {}),
                pass_fds=[theirs.fileno()],
                **(self._user.popen_options if self._user else {}),
            )
        self.pid = process.pid
        with ours:
            with self._lock:
                self._control = ours
                if self._stopping.is_set():
                    ours.shutdown(socket.SHUT_RDWR)
            hung = self._receive_until_end(ours, process.pid)
            self._ready.clear()
            process.kill()
            code = process.wait()
            how = ProcessExit(signal=-code) if code < 0 else ProcessExit(code=code)
            self._end_orphans(hung=hung)
        return how

    def _receive_until_end(self, control: socket.socket, zygote: int) -> bool:
        """Receive the zygote's messages and watch its runners, until it has ended (False) or hangs (True)."""
        clock = child_process.RunningClock(self._ping_seconds)
        received_at = clock.read()
        with ExitMonitor(control, zygote, clock) as monitor:
            while True:
                if not monitor.wait(self._ping_seconds):
                    self._send_ping(control)
                else:
                    message, fds = _receive_message(control)
                    if message is None:
                        return False
                    received_at = clock.read()
                    self._on_message(message, fds, monitor)
                self._end_unreported(monitor, REPORT_SECONDS)
                silent = clock.read() - received_at
                if self._ready.is_set() and silent > self._silence_seconds:
                    log.error("the zygote %d has been silent for %.0f s and is killed", zygote, silent)
                    self._end_unreported(monitor, 0.0)
                    return True

    def _send_ping(self, control: socket.socket) -> None:
        if self._ready.is_set():
            with contextlib.suppress(OSError):  # full, or ended: the receiving loop detects both
                control.send(b'{"ping": true}')

    def _on_message(self, message: dict[str, Any], fds: list[int], monitor: ExitMonitor) -> None:
        if "ready" in message:
            log.info("the worker is ready: its zygote %d can fork", message["ready"])
            self._ready.set()
        elif "pid" in message:
            self._on_runner_started(message["runner"], message["pid"], fds, monitor)
        elif "status" in message:
            monitor.forget_runner(message["runner"])
            self._end_runner(message["runner"], ProcessExit.from_wait_status(message["status"]))

    def _on_runner_started(self, name: str, pid: int, fds: list[int], monitor: ExitMonitor) -> None:
        if not self._pidfds:
            while fds:
                os.close(fds.pop())
        monitor.watch_runner(name, pid, fds[0] if fds else None)
        with self._lock:
            runner = self._runners.get(name)
        if runner is not None:
            runner.set_pid(pid)

    def _end_runner(self, name: str, how: ProcessExit) -> None:
        with self._lock:
            runner = self._runners.pop(name, None)
        if runner is not None:
            runner.set_exit(how)

    def _end_unreported(self, monitor: ExitMonitor, seconds: float) -> None:
        """End the runners whose exit the zygote has not reported within `seconds`."""
        for name, status in monitor.unreported_exits(seconds).items():
            how = ProcessExit.from_wait_status(status) if status else ProcessExit(signal=signal.SIGKILL)
            log.warning("a runner has ended (%s), which its zygote did not report", how)
            self._end_runner(name, how)

    def _end_orphans(self, *, hung: bool) -> None:
        """End the runners of a zygote that is gone: the kernel kills them (SIGKILL), and no process reports it."""
        with self._lock:
            self._control = None
            orphans = list(self._runners.values())
            self._runners.clear()
        for runner in orphans:
            runner.kill()
        how = ProcessExit(signal=signal.SIGKILL, zygote_killed=hung)
        threading.Thread(target=_end_when_gone, args=(orphans, how), name="orphans", daemon=True).start()


def _end_when_gone(runners: list[RunnerProcess], how: ProcessExit) -> None:
    """Wait for runners without a zygote: each has ended when its process is gone and its memory is free."""
    while runners:
        left = []
        for runner in runners:
            if runner.pid is None or child_process.is_gone(runner.pid):
                runner.set_exit(how)
            else:
                left.append(runner)
        runners = left
        time.sleep(ORPHAN_TICK)


def _receive_message(control: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """The next message of the zygote with its pidfd, if it carries one; None when the zygote is gone."""
    try:
        data, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 1)
    except OSError:
        return None, []
    return (json.loads(data) if data else None), fds


def best_launcher(silence_seconds: float = SILENCE_SECONDS, user: RunnerUser | None = None) -> Launcher:
    """Fork where a process that has loaded torch survives it: Linux."""
    return ZygoteLauncher(silence_seconds, user=user) if sys.platform == "linux" else ExecLauncher()
