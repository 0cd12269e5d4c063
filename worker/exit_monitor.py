"""Detects the exit of a runner without its zygote, which may hang: by a pidfd, or else by reading /proc."""

import os
import selectors
import signal
import socket
from dataclasses import dataclass
from typing import Final, Self

from worker import child_process

REPORT_SECONDS: Final = 1.0  # time for a healthy zygote to report an exit before the monitor does


@dataclass
class _WatchedRunner:
    pid: int
    pidfd: int | None
    dead_at: float | None = None


class ExitMonitor:
    """Waits for messages of a zygote and for the exits of its runners, in the one thread that calls it."""

    def __init__(self, control: socket.socket, zygote: int, clock: child_process.RunningClock) -> None:
        self._zygote = zygote
        self._clock = clock
        self._watched: dict[str, _WatchedRunner] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._watched):
            self.forget_runner(name)
        self._selector.close()

    def watch_runner(self, name: str, pid: int, pidfd: int | None) -> None:
        """Watch a runner until `forget_runner`; without a pidfd each `wait` reads /proc. Takes over the pidfd."""
        self._watched[name] = _WatchedRunner(pid, pidfd)
        if pidfd is not None:
            self._selector.register(pidfd, selectors.EVENT_READ, self._watched[name])

    def forget_runner(self, name: str) -> None:
        """Stop watching a runner whose exit is known; a name that is not watched is no error."""
        if (runner := self._watched.pop(name, None)) is not None:
            self._close_pidfd(runner)

    def wait(self, seconds: float) -> bool:
        """Wait at most `seconds`; True when the zygote has sent a message."""
        spoken = False
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                spoken = True
            else:
                self._close_pidfd(key.data)  # a pidfd stays readable after the exit
                key.data.dead_at = self._clock.read()
        for runner in self._watched.values():
            if runner.pidfd is None and runner.dead_at is None and child_process.has_exited(runner.pid, self._zygote):
                runner.dead_at = self._clock.read()
        return spoken

    def unreported_exits(self, seconds: float) -> dict[str, int | None]:
        """Wait statuses of runners that ended at least `seconds` ago; None: unknown. Each is no longer watched."""
        now = self._clock.read()
        late = [name for name, one in self._watched.items() if one.dead_at is not None and now - one.dead_at >= seconds]
        return {name: self._exit_status(self._watched.pop(name)) for name in late}

    def _exit_status(self, runner: _WatchedRunner) -> int | None:
        status = child_process.zombie_status(runner.pid, self._zygote)
        if status is not None:
            child_process.kill_group(
                runner.pid, signal.SIGKILL
            )  # its children, while the zombie still holds the group's number
        return status

    def _close_pidfd(self, runner: _WatchedRunner) -> None:
        if runner.pidfd is not None:
            self._selector.unregister(runner.pidfd)
            os.close(runner.pidfd)
            runner.pidfd = None
