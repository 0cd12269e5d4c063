"""Watches one runner: receives its frames, sends it the orders of its user and its worker, and detects a stall."""

import contextlib
import logging
import select
import time
from dataclasses import replace
from typing import Any, Final

from core.jobs.attempt.heartbeat import WHOLE_RUN
from core.lifecycle import Desired
from worker import wire
from worker.backlog import Backlog
from worker.child_process import RunningClock
from worker.heartbeat import Heartbeat
from worker.launcher import RunnerProcess
from worker.outcome import KillReason, Observed, StopOrder
from worker.recorder import Recorder

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.1
READ_BYTES: Final = 1 << 18
PAUSE_SECONDS: Final = 60.0
LAST_WORDS_SECONDS: Final = 5.0
STARTUP_STALLS: Final = 5  # factor before the first step and for the first piece of a kind: caches and kernels are cold
STALL_FACTOR: Final = 20
OWN_FRAMES: Final = frozenset({"started", "progress", "log", "ended"})
"""The frames of a process that is no runner."""
_STRENGTH: Final = {StopOrder.NOTHING: 0, StopOrder.PAUSE: 1, StopOrder.STOP: 2, StopOrder.CANCEL: 3}


class StallDetector:
    """Whether a runner hangs: no frame for max(`floor` seconds, 20 times the usual duration of its present piece)."""

    def __init__(self, floor: float, now: float) -> None:
        self._floor = floor
        self._sign_at = now
        self._stepped = False
        self._usual: float | None = None  # median seconds of the pieces of this kind; None: none is complete
        self.piece = "start"

    def record_sign(self, now: float) -> None:
        """Any frame of the runner."""
        self._sign_at = now

    def record_step(self, now: float) -> None:
        """A report that steps are complete."""
        self._stepped = True
        self._sign_at = now

    def begin_piece(self, piece: str, usual: float | None, now: float) -> None:
        """A report that a piece of work begins, which usually takes `usual` seconds."""
        self.piece, self._usual = piece, usual
        self._sign_at = now

    def silence_limit(self) -> float:
        """Seconds without a frame after which the runner counts as stalled."""
        unknown = self._usual is None or not self._stepped
        return max(self._floor * (STARTUP_STALLS if unknown else 1), STALL_FACTOR * (self._usual or 0.0))

    def is_stalled(self, now: float) -> bool:
        return now - self._sign_at > self.silence_limit()


class RunTimeEstimator:
    """Estimates the seconds of the whole run at the rate of this attempt. Building the network and reading the data do
    not count, and neither does the first step where there are more.
    """

    def __init__(self) -> None:
        self._began: tuple[int, float] | None = None  # steps that were complete, when
        self._first: tuple[float, float] | None = None  # share of the run, when
        self._share = 0.0

    def record_start(self, step: int, now: float) -> None:
        """Network and data are ready, and the first step begins."""
        self._began = step, now

    def estimate_seconds(self, step: int, share: float, now: float) -> float | None:
        """A report that `step` steps, a `share` of the run, are complete; None while there is no estimate."""
        if share < self._share:  # a rollback: the estimate starts again
            self._began = self._first = None
        if self._first is None or now == self._first[1]:
            self._first = share, now
        self._share = share
        grown, since = share - self._first[0], self._first[1]
        if not grown and self._began is not None and step > self._began[0]:
            grown, since = share * (1 - self._began[0] / step), self._began[1]
        return (now - since) / grown if grown > 0 else None


class RunnerWatch:
    """Watches one runner, from its assignment to its last frame."""

    def __init__(
        self,
        runner: RunnerProcess,
        heartbeat: Heartbeat,
        backlog: Backlog,
        recorder: Recorder,
        *,
        most_seconds: float | None = None,
    ) -> None:
        """`most_seconds` is for a process that is no runner: how long it may run. It has no checkpoint to write, so
        that every order ends it at once, and only the frames of OWN_FRAMES count.
        """
        self._most_seconds = most_seconds
        self._clock = RunningClock(1.0)
        self._runner = runner
        self._heartbeat = heartbeat
        self._backlog = backlog
        self._recorder = recorder
        self._settings = heartbeat.settings
        self._splitter = wire.FrameSplitter()
        self._stall_detector = StallDetector(heartbeat.settings.stall_seconds, time.monotonic())
        self._estimator = RunTimeEstimator()
        self._asked_at = 0.0
        self._killed_at: float | None = None
        self._seen = Observed()

    def watch_until_end(self) -> Observed:
        """Watch until the runner has reported its end, has exited, or is killed."""
        while self._seen.ended is None and self._seen.cut is KillReason.NO and self._read_pipe():
            now = time.monotonic()
            self._send_order(now)
            self._kill_if_hopeless(now)
            if self._killed_at is not None and now - self._killed_at > LAST_WORDS_SECONDS:
                break
        return self._seen

    def _read_pipe(self) -> bool:
        """Wait at most a tick and read what the pipe holds; False at its end."""
        if self._backlog.full:
            time.sleep(TICK_SECONDS)  # the full pipe now blocks the runner
            self._stall_detector.record_sign(time.monotonic())  # so its silence is no stall
            return True
        if not select.select([self._runner.sock], [], [], TICK_SECONDS)[0]:
            return True
        try:
            data = self._runner.sock.recv(READ_BYTES)
        except OSError:
            return False
        now = time.monotonic()
        for payload in self._splitter.feed_bytes(data):
            self._on_frame(payload, now)
        return bool(data)

    def _on_frame(self, payload: bytes, now: float) -> None:
        self._stall_detector.record_sign(now)
        if self._most_seconds is not None and wire.type_of(payload) not in OWN_FRAMES:
            return
        match wire.type_of(payload):
            case "progress":
                self._on_progress(wire.unpack_payload(payload), now)
            case "alive":
                frame = wire.unpack_payload(payload)
                self._stall_detector.begin_piece(frame["piece"], frame["usual"], now)
            case "started":
                self._estimator.record_start(wire.unpack_payload(payload)["step"], now)
                self._seen = replace(self._seen, started=True)
                self._backlog.put(payload)
            case "ended":
                self._seen = replace(self._seen, ended=wire.unpack_payload(payload))
            case "checkpoint":
                files = wire.unpack_payload(payload)["files"]
                self._backlog.put(payload, sum(file["bytes"] for file in files.values()))
            case _:
                self._backlog.put(payload)

    def _on_progress(self, frame: dict[str, Any], now: float) -> None:
        progress = {name: value for name, value in frame.items() if name not in {"type", "job"}}
        self._stall_detector.record_step(now)
        whole = self._estimator.estimate_seconds(frame["step"], frame["fraction"], now)
        self._heartbeat.report_progress(progress if whole is None else progress | {WHOLE_RUN: round(whole, 3)})
        self._seen = replace(self._seen, progress=progress)

    def _wanted_order(self) -> StopOrder:
        if self._heartbeat.desired is Desired.CANCEL:
            return StopOrder.CANCEL
        if self._heartbeat.stopping.is_set():
            return StopOrder.STOP
        return StopOrder.PAUSE if self._heartbeat.desired is Desired.PAUSE else StopOrder.NOTHING

    def _send_order(self, now: float) -> None:
        """Send the runner each new order once; kill it when it does not obey in time."""
        order = self._wanted_order()
        if _STRENGTH[order] > _STRENGTH[self._seen.asked]:
            self._seen, self._asked_at = replace(self._seen, asked=order), now
            if order is StopOrder.CANCEL or self._most_seconds is not None:
                self._runner.terminate()
            else:
                with contextlib.suppress(OSError):
                    self._runner.sock.sendall(wire.pack_frame("stop", "", {"mode": "checkpoint"}))
        elif self._killed_at is None and now - self._asked_at > self._grace_seconds(self._seen.asked):
            log.warning("a runner did not %s in time and is killed", self._seen.asked)
            self._runner.kill()
            self._killed_at = now

    def _is_overtime(self, now: float) -> bool:
        """Whether a process that is no runner has run for too long, or hangs: a parser that is out of address space
        may wait for ever, without any CPU time.
        """
        if self._most_seconds is None:
            return False
        return self._clock.read() > self._most_seconds or self._stall_detector.is_stalled(now)

    def _grace_seconds(self, asked: StopOrder) -> float:
        """Seconds between an order and SIGKILL."""
        return {
            StopOrder.NOTHING: float("inf"),
            StopOrder.PAUSE: PAUSE_SECONDS,
            StopOrder.STOP: self._settings.stop_grace_seconds,
            StopOrder.CANCEL: self._settings.cancel_grace_seconds,
        }[asked]

    def _kill_if_hopeless(self, now: float) -> None:
        """Kill a runner that is fenced, abandoned, stalled, or whose results cannot be recorded."""
        cut = KillReason.NO
        if self._heartbeat.fenced:
            cut = KillReason.FENCED
        elif self._heartbeat.given_up:
            cut = KillReason.OUT_OF_TOUCH
        elif self._recorder.failure is not None:
            cut = KillReason.UNRECORDED
        elif self._seen.asked is StopOrder.NOTHING and self._is_overtime(now):
            cut = KillReason.OVERTIME
        elif self._seen.asked is StopOrder.NOTHING and self._stall_detector.is_stalled(now):
            cut = KillReason.STALLED
        if cut is not KillReason.NO:
            log.warning("a runner is killed: %s (last piece of work: %s)", cut, self._stall_detector.piece)
            self._runner.kill()
            self._seen = replace(self._seen, cut=cut)
