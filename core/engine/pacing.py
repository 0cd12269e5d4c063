"""The limit on how far the host runs ahead of a device that computes asynchronously.

A loop that never waits queues minutes of work on a GPU. A stop, a checkpoint or a lost device then takes effect minutes
late. So an event is recorded every few steps, and the loop waits for the one before the last.

Loops do not call a pacer: every loop reports the piece of work that it begins (see core.engine.liveness), and the host
waits in that report.
"""

import time
from collections.abc import Callable
from typing import Final, Protocol

import torch

from core.engine.liveness import Piece, ReportAlive

AHEAD_SECONDS: Final = 0.5  # of queued work, at most
MOST_STEPS: Final = 1000  # between two events


class DeviceEvent(Protocol):
    """A point in the device's queue, such as torch.cuda.Event."""

    def synchronize(self) -> None:
        """Wait until the device reaches it."""


class Pacer:
    """Bounds the work that is queued ahead to about `ahead` seconds. It changes no result.

    The queue holds at most two intervals of `every` steps. `every` adapts to the speed of the device, so that an
    interval takes half of `ahead`. The host never waits for a device that is faster than itself.
    """

    def __init__(
        self,
        record: Callable[[], DeviceEvent],
        ahead: float = AHEAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._record = record
        self._interval = ahead / 2
        self._clock = clock
        self._every = 1
        self._steps = 0
        self._last: tuple[DeviceEvent, int] | None = None
        self._passed_at: float | None = None

    def step(self) -> None:
        """Count one queued step; wait for the device at the end of an interval."""
        self._steps += 1
        if self._steps < self._every:
            return
        before, self._last = self._last, (self._record(), self._steps)
        self._steps = 0
        if before is None:
            return
        event, steps = before
        event.synchronize()
        now = self._clock()
        if self._passed_at is not None:
            self._adapt_interval(steps, now - self._passed_at)
        self._passed_at = now

    def restart(self) -> None:
        """Wait for all queued work and measure the interval again: steps of another length follow."""
        self._record().synchronize()
        self._every, self._steps = 1, 0
        self._last = self._passed_at = None

    def _adapt_interval(self, steps: int, seconds: float) -> None:
        """Set the next interval from one of `steps` that took `seconds`; it at most doubles, as one sample is noisy."""
        fitting = int(steps * self._interval / max(seconds, 1e-9))
        self._every = max(1, min(fitting, 2 * steps, MOST_STEPS))


def build_pacer(device: torch.device) -> Pacer | None:
    """A pacer for a CUDA device; None on a CPU, where every call waits for its result."""
    return Pacer(lambda: _record_event(device)) if device.type == "cuda" else None


def with_pacing(report_alive: ReportAlive, device: torch.device) -> ReportAlive:
    """`report_alive`, called when at most AHEAD_SECONDS of work are queued on the device.

    Where another kind of piece begins, it is called when no work is queued. On a CPU it is `report_alive` itself.
    """
    if (pacer := build_pacer(device)) is None:
        return report_alive
    last: Piece | None = None

    def report(piece: Piece) -> None:
        nonlocal last
        if piece == last:
            pacer.step()
        else:
            pacer.restart()
            last = piece
        report_alive(piece)

    return report


def _record_event(device: torch.device) -> torch.cuda.Event:
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event
