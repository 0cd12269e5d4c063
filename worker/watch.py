"""Watching one runner: its frames come in, its owner's and its worker's wishes go out, and silence is noticed."""

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
from worker.heartbeat import Heart
from worker.launcher import RunnerProcess
from worker.outcome import Asked, Cut, Observed
from worker.recorder import Recorder

log = logging.getLogger(__name__)

TICK_SECONDS: Final = 0.1
READ_BYTES: Final = 1 << 18
PAUSE_SECONDS: Final = 60.0
LAST_WORDS_SECONDS: Final = 5.0
STARTUP_STALLS: Final = 5  # before the first step, and for the first piece of a kind: caches and kernels are cold
STALL_FACTOR: Final = 20
_STRENGTH: Final = {Asked.NOTHING: 0, Asked.PAUSE: 1, Asked.STOP: 2, Asked.CANCEL: 3}


class Pace:
    """Whether a runner hangs: no sign for max(`floor` seconds, 20 times what a piece like its present one takes)."""

    def __init__(self, floor: float, now: float) -> None:
        self._floor = floor
        self._sign_at = now
        self._stepped = False
        self._usual: float | None = None  # median seconds of the pieces of this kind; None: none is complete
        self.piece = "start"

    def sign(self, now: float) -> None:
        """Anything that the runner said."""
        self._sign_at = now

    def stepped(self, now: float) -> None:
        """A report that steps are complete."""
        self._stepped = True
        self._sign_at = now

    def began(self, piece: str, usual: float | None, now: float) -> None:
        """A report that a piece of work begins, which usually takes so many seconds."""
        self.piece, self._usual = piece, usual
        self._sign_at = now

    def limit(self) -> float:
        """Seconds of silence that are too many."""
        unknown = self._usual is None or not self._stepped
        return max(self._floor * (STARTUP_STALLS if unknown else 1), STALL_FACTOR * (self._usual or 0.0))

    def stalled(self, now: float) -> bool:
        return now - self._sign_at > self.limit()


class Tempo:
    """How many seconds the whole run takes at the rate of this attempt. What came before its first step, a network that
    is built and data that are read, is no part of that, and neither is the first step where there are more.
    """

    def __init__(self) -> None:
        self._began: tuple[int, float] | None = None  # steps that were complete, when
        self._first: tuple[float, float] | None = None  # share of the run, when
        self._share = 0.0

    def started(self, step: int, now: float) -> None:
        """All is built, and the first step begins."""
        self._began = step, now

    def seconds(self, step: int, share: float, now: float) -> float | None:
        """A report that `step` steps, a `share` of the run, are complete; None when nothing can be said yet."""
        if share < self._share:  # it went back, and begins anew
            self._began = self._first = None
        if self._first is None or now == self._first[1]:
            self._first = share, now
        self._share = share
        grown, since = share - self._first[0], self._first[1]
        if not grown and self._began is not None and step > self._began[0]:
            grown, since = share * (1 - self._began[0] / step), self._began[1]
        return (now - since) / grown if grown > 0 else None


class Watch:
    """One runner, from the order to the last frame."""

    def __init__(self, runner: RunnerProcess, heart: Heart, backlog: Backlog, recorder: Recorder) -> None:
        self._runner = runner
        self._heart = heart
        self._backlog = backlog
        self._recorder = recorder
        self._settings = heart.settings
        self._splitter = wire.Splitter()
        self._pace = Pace(heart.settings.stall_seconds, time.monotonic())
        self._tempo = Tempo()
        self._asked_at = 0.0
        self._killed_at: float | None = None
        self._seen = Observed()

    def until_end(self) -> Observed:
        """Until the runner has said how it ended, is gone, or is cut off."""
        while self._seen.ended is None and self._seen.cut is Cut.NO and self._read():
            now = time.monotonic()
            self._ask(now)
            self._judge(now)
            if self._killed_at is not None and now - self._killed_at > LAST_WORDS_SECONDS:
                break
        return self._seen

    def _read(self) -> bool:
        """Take in what the pipe holds, after at most a tick; False at its end."""
        if self._backlog.full:
            time.sleep(TICK_SECONDS)  # the pipe now holds the runner back
            self._pace.sign(time.monotonic())  # so that its silence says nothing
            return True
        if not select.select([self._runner.sock], [], [], TICK_SECONDS)[0]:
            return True
        try:
            data = self._runner.sock.recv(READ_BYTES)
        except OSError:
            return False
        now = time.monotonic()
        for payload in self._splitter.feed(data):
            self._hear(payload, now)
        return bool(data)

    def _hear(self, payload: bytes, now: float) -> None:
        self._pace.sign(now)
        match wire.type_of(payload):
            case "progress":
                self._progress(wire.unpack(payload), now)
            case "alive":
                frame = wire.unpack(payload)
                self._pace.began(frame["piece"], frame["usual"], now)
            case "started":
                self._tempo.started(wire.unpack(payload)["step"], now)
                self._backlog.put(payload)
            case "ended":
                self._seen = replace(self._seen, ended=wire.unpack(payload))
            case "checkpoint":
                files = wire.unpack(payload)["files"]
                self._backlog.put(payload, sum(file["bytes"] for file in files.values()))
            case _:
                self._backlog.put(payload)

    def _progress(self, frame: dict[str, Any], now: float) -> None:
        progress = {name: value for name, value in frame.items() if name not in {"type", "job"}}
        self._pace.stepped(now)
        whole = self._tempo.seconds(frame["step"], frame["fraction"], now)
        self._heart.report(progress if whole is None else progress | {WHOLE_RUN: round(whole, 3)})
        self._seen = replace(self._seen, progress=progress)

    def _wish(self) -> Asked:
        if self._heart.desired is Desired.CANCEL:
            return Asked.CANCEL
        if self._heart.stopping.is_set():
            return Asked.STOP
        return Asked.PAUSE if self._heart.desired is Desired.PAUSE else Asked.NOTHING

    def _ask(self, now: float) -> None:
        """Tell the runner what is wanted, once; kill it when it does not do so in time."""
        wish = self._wish()
        if _STRENGTH[wish] > _STRENGTH[self._seen.asked]:
            self._seen, self._asked_at = replace(self._seen, asked=wish), now
            if wish is Asked.CANCEL:
                self._runner.terminate()
            else:
                with contextlib.suppress(OSError):
                    self._runner.sock.sendall(wire.pack("stop", "", {"mode": "checkpoint"}))
        elif self._killed_at is None and now - self._asked_at > self._grace(self._seen.asked):
            log.warning("a runner did not %s in time and is killed", self._seen.asked)
            self._runner.kill()
            self._killed_at = now

    def _grace(self, asked: Asked) -> float:
        """Seconds between asking and SIGKILL."""
        return {
            Asked.NOTHING: float("inf"),
            Asked.PAUSE: PAUSE_SECONDS,
            Asked.STOP: self._settings.stop_grace_seconds,
            Asked.CANCEL: self._settings.cancel_grace_seconds,
        }[asked]

    def _judge(self, now: float) -> None:
        """Cut the runner off where going on makes no sense."""
        cut = Cut.NO
        if self._heart.fenced:
            cut = Cut.FENCED
        elif self._heart.given_up:
            cut = Cut.OUT_OF_TOUCH
        elif self._recorder.failure is not None:
            cut = Cut.UNRECORDED
        elif self._seen.asked is Asked.NOTHING and self._pace.stalled(now):
            cut = Cut.STALLED
        if cut is not Cut.NO:
            log.warning("a runner is killed: %s (last piece of work: %s)", cut, self._pace.piece)
            self._runner.kill()
            self._seen = replace(self._seen, cut=cut)
