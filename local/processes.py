"""The parts of the service as child processes: they are started, restarted when they end, and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import core.process

FIRST_PAUSE: Final = 0.2  # seconds before a part that ended is restarted; doubles with every failed start in a row
LAST_PAUSE: Final = 5.0
STEADY_SECONDS: Final = 30.0  # a part that ran this long has started well, and the pause is reset
LONGEST_LOG: Final = 10_000_000  # bytes; a longer log is renamed when the part starts

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """What to run. `command` starts with an absolute path; `environment` is added to ours.

    A part that is not `trusted` sees none of our settings and credentials: its own environment is open to every
    process of this user.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    trusted: bool = True


class ProcessMonitor:
    """Keeps one part running. All methods are called by the main thread, which lives as long as the process."""

    def __init__(self, part: ServiceProcess, tell: Tell) -> None:
        self.part = part
        self._tell = tell
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._due = 0.0
        self._pause = FIRST_PAUSE
        self._reported_pause = 0.0
        self._log_from = 0

    @property
    def is_running(self) -> bool:
        return self._process is not None and not has_ended(self._process)

    def start(self) -> None:
        """Starts the part in a session of its own, so that a Ctrl-C in the terminal reaches only this process."""
        self._started_at = time.monotonic()
        inherited = os.environ if self.part.trusted else core.process.without_secrets(os.environ)
        with open_log(self.part.log) as log:
            self._log_from = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(  # noqa: S603 - our own parts
                [sys.executable, "-I", "-S", core.process.__file__, str(os.getpid()), *self.part.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**inherited, **self.part.environment},
                start_new_session=True,
            )

    def restart_if_dead(self) -> None:
        """Restarts the part when it has ended, after a pause that grows while it keeps ending."""
        now = time.monotonic()
        if self._process is None:
            if now >= self._due:
                self.start()
        elif has_ended(self._process):
            if now - self._started_at > STEADY_SECONDS:
                self._pause, self._reported_pause = FIRST_PAUSE, 0.0
            how = describe_exit(kill_and_reap_group(self._process))
            if self._pause != self._reported_pause:  # reported once per length of pause
                self._reported_pause = self._pause
                self._tell(f"{self.part.name} ended ({how}), starts again in {self._pause:.1f} s; see {self.part.log}")
            self._process, self._due = None, now + self._pause
            self._pause = min(2 * self._pause, LAST_PAUSE)

    def send_signal(self, number: int) -> None:
        """Sends a signal to the part's own process, not to its group."""
        if self._process is not None and not has_ended(self._process):
            os.kill(self._process.pid, number)  # not Popen.send_signal: it polls, and would reap the process

    def kill_and_reap(self) -> int | None:
        """Kills the rest of the part's group; returns its exit status, negative for a signal."""
        process, self._process = self._process, None
        return None if process is None else kill_and_reap_group(process)

    def tail_log(self, lines: int = 8) -> str:
        """The last lines that the part has logged since its last start."""
        with suppress(OSError), self.part.log.open("rb") as log:
            log.seek(max(self._log_from, log.seek(0, os.SEEK_END) - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
        return ""


def open_log(log: Path) -> BinaryIO:
    """Opens the log for appending; a long one is renamed to `.old.log` first."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if log.stat().st_size > LONGEST_LOG:
            log.replace(log.with_suffix(".old.log"))
    return log.open("ab")


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the process has ended. It is not reaped, so that its pid is not reused."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def kill_and_reap_group(process: subprocess.Popen[bytes]) -> int:
    """Kills the process and the rest of its group; returns its exit status, negative for a signal."""
    if process.returncode is None:
        core.process.signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def describe_exit(status: int) -> str:
    """An exit status as text: `exit status 1`, or the name of the signal."""
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name


def stop_processes(monitors: Sequence[ProcessMonitor], seconds: float, hurry: Callable[[], bool]) -> None:
    """Sends SIGTERM to the parts, waits up to `seconds` or until `hurry()`, and kills the rest of them."""
    for monitor in monitors:
        monitor.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(monitor.is_running for monitor in monitors) and time.monotonic() < deadline and not hurry():
        time.sleep(0.02)
    for monitor in monitors:
        monitor.kill_and_reap()
