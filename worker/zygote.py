"""The process that has imported torch and forks a runner per order, so that a job need not wait 2 s for the import.

Exec'd by the launcher with a clean environment. One thread, no CUDA context, no credential, no database. It ends
when its control socket does or its parent dies, and the kernel then kills its runners.

    launcher -> zygote   {"runner": id, "stderr": file, "devices": "0" | null}  with the runner's end of its pipe
                         {"ping": true}
    zygote -> launcher   {"ready": …}   {"runner": id, "pid": n}  with its pidfd   {"runner": id, "status": wait status}
                         {"pong": true}
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.process import die_with_parent, set_process_name
from worker import child_process, exit_codes, kernel_oom

ORDER_BYTES: Final = 64 << 10
START_SECONDS: Final = 10.0  # for the first few lines of a child
START_TICK: Final = 1.0
READY_NAME: Final = "basin-zygote"  # in /proc/<pid>/comm as soon as it can fork: health checks read it
RUNNER_NAME: Final = "basin-runner"
_RESET: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP)


@dataclass(frozen=True)
class StartingRunner:
    """A child that does not lead its group yet; it is killed at the `deadline` of the zygote's running clock."""

    runner: str
    pid: int
    deadline: float


class Zygote:
    """Serves orders, one datagram each, until the other end is gone."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._runners: dict[int, str] = {}  # pid -> runner id
        self._starting: dict[
            int, StartingRunner
        ] = {}  # by the pipe whose end means that the child leads its group, or is dead
        self._clock = child_process.RunningClock(START_TICK)
        self._wake, self._woken = socket.socketpair()

    def serve_orders(self) -> None:
        self._watch_children()
        set_process_name(READY_NAME)
        self._send_message({"ready": os.getpid()})
        while True:
            waited_for: list[Any] = [self._control, self._wake, *self._starting]
            readable, _, _ = select.select(waited_for, [], [], START_TICK if self._starting else None)
            for ready in [fd for fd in self._starting if fd in readable]:
                self._report_started(ready)
            self._kill_overdue()
            if self._wake in readable:
                self._wake.recv(4096)
                self._report_ended()
            if self._control in readable and not self._handle_order():
                return

    def _watch_children(self) -> None:
        """SIGCHLD becomes a byte on a socket, so that one `select` receives orders and exits."""
        self._woken.settimeout(0)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _signum, _frame: None)

    def _handle_order(self) -> bool:
        try:
            data, fds, _, _ = socket.recv_fds(self._control, ORDER_BYTES, 1)
        except ConnectionResetError:  # also the end: the launcher closed its socket with unread messages
            return False
        if not data:
            return False
        order = json.loads(data)
        if "ping" in order:
            self._send_message({"pong": True})
            return True
        ends: tuple[int, ...] = ()
        try:
            (pipe,) = fds  # the kernel drops the descriptor at the limit of open files
            ends = ready, ready_writer = os.pipe()
            pid = os.fork()
        except (OSError, ValueError) as error:  # the other runners are not affected
            return self._report_refused(order, (*fds, *ends), error)
        if pid == 0:
            self._become_runner(order, pipe, ready, ready_writer)
        os.close(pipe)
        os.close(ready_writer)
        self._starting[ready] = StartingRunner(order["runner"], pid, self._clock.read() + START_SECONDS)
        return True

    def _report_started(self, ready: int) -> None:
        """Report a runner that leads its group: before that, a signal to the group reaches no process."""
        os.close(ready)
        starting = self._starting.pop(ready)
        self._runners[starting.pid] = starting.runner
        pidfds = _open_pidfd(starting.pid)  # here, where the pid cannot be reused: only the zygote reaps the child
        self._send_message({"runner": starting.runner, "pid": starting.pid}, pidfds)
        for fd in pidfds:
            os.close(fd)

    def _kill_overdue(self) -> None:
        """Kill children that were stopped before they led their group: only the zygote can signal them."""
        now = self._clock.read()
        for starting in self._starting.values():
            if now > starting.deadline:
                os.kill(starting.pid, signal.SIGKILL)

    def _report_refused(self, order: dict[str, Any], fds: Sequence[int], error: Exception) -> bool:
        """Report a failed fork as a runner that ended with MACHINE_FAILED: this machine has no room for a process."""
        with contextlib.suppress(OSError):
            sys.stderr.write(f"no runner could be forked: {error}\n")
        for fd in fds:
            os.close(fd)
        self._send_message({"runner": order["runner"], "status": exit_codes.MACHINE_FAILED << 8})
        return True

    def _report_ended(self) -> None:
        """Report every runner that has ended; signals may have been merged, so repeat until none is left."""
        while self._runners or self._starting:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            for ready in [fd for fd, starting in self._starting.items() if starting.pid == ended.si_pid]:
                self._report_started(ready)
            status = child_process.reap_group(ended.si_pid)
            self._send_message({"runner": self._runners.pop(ended.si_pid, ""), "status": status})

    def _send_message(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def _become_runner(self, order: dict[str, Any], fd: int, ready: int, ready_writer: int) -> None:
        """Run the forked child to its exit; it never returns into the zygote's loop."""
        code = exit_codes.CRASHED
        try:
            set_process_name(RUNNER_NAME)
            signal.set_wakeup_fd(-1)
            for signum in _RESET:
                signal.signal(signum, signal.SIG_DFL)
            os.setsid()
            os.close(ready)
            os.close(ready_writer)
            die_with_parent(self._pid)
            kernel_oom.prefer_as_oom_victim()
            self._control.close()
            self._wake.close()
            self._woken.close()
            code = run_as_runner(fd, order["stderr"], order["devices"])
        except BaseException as error:  # noqa: BLE001 - a forked child must end here, whatever happened
            code = exit_codes.print_exception(error)
        finally:
            exit_codes.exit_now(code)


def _open_pidfd(pid: int) -> list[int]:
    """A pidfd of a child; none where the kernel or a sandbox has none: the launcher then reads /proc."""
    try:
        return [os.pidfd_open(pid)]
    except (AttributeError, OSError):
        return []


def run_as_runner(fd: int, stderr: str, devices: str | None) -> int:
    """Close all descriptors but the pipe, redirect output to `stderr`, and run the job; the exit status."""
    from worker import runner

    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(null, 0)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    return runner.run(socket.socket(fileno=fd))


def main() -> None:
    """`python -m worker.zygote FD PARENT`: warm up, then serve."""
    control, parent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    die_with_parent(parent)
    # A Ctrl-C or a service manager's SIGTERM goes to the whole group: the worker decides, and closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from worker import runner

    runner.warm()
    gc.collect()
    gc.freeze()  # a collection in a runner would otherwise copy the zygote's pages
    Zygote(control).serve_orders()


if __name__ == "__main__":
    main()
