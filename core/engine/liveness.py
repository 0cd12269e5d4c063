"""Heartbeats of a computation: it reports each piece of work that it begins; without reports it counts as hung.

A piece is a unit of bounded time: one forward pass, one product with a Hessian, one piece of a file. Only the thread
that does the work reports, between pieces. Processor time is no heartbeat, because a deadlock may spin.

On a GPU work is queued, and a piece begins when the host begins to queue it. core.engine.pacing makes each report wait
for the device, so that a report is at most half a second, or two pieces, ahead of the device.
"""

import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeVar

REPORT_SECONDS: Final = 0.25  # between two heartbeats, however fast the pieces are
FAST_SECONDS: Final = 0.05  # shorter pieces count as 0: the supervisor's limit does not depend on them
REMEMBERED: Final = 101  # durations of each kind

Piece = Literal[
    "step",  # loss and gradient of one batch, or of one micro-batch, and the update that follows
    "evaluate",
    "batch_norm",
    "gradient",
    "hessian",
    "dataset",
    "checkpoint",
    "picture",
    "other",  # the work after the last piece of a kind
]
ReportAlive = Callable[[Piece], None]
"""Called when a piece begins; the one before is then over."""

T = TypeVar("T")


def report_nothing(piece: Piece) -> None:
    """Report to no process: for a run without a supervisor."""


def report_each(report_alive: ReportAlive, piece: Piece, items: Iterable[T]) -> Iterator[T]:
    """Yield the items and report a piece for the work on each of them."""
    for item in items:
        report_alive(piece)
        yield item
    report_alive("other")


class PieceTimer:
    """A `ReportAlive` that sends a supervisor the piece of work that begins and the usual duration of its kind.

    The supervisor's time limit follows from that duration. So a heartbeat is sent whenever the usual duration differs
    from the last one sent; otherwise when the last heartbeat is REPORT_SECONDS old. Most fast pieces cost one reading
    of the clock and send nothing.
    """

    def __init__(
        self, send: Callable[[Piece, float | None], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`send` takes a kind and the median seconds of its pieces; None: no piece of that kind is complete yet."""
        self._send = send
        self._clock = clock
        self._durations: defaultdict[Piece, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._usual: dict[Piece, float] = {}
        self._piece: Piece | None = None
        self._began = self._sent_at = clock()
        self._sent: float | None = None
        self._same: deque[float] = deque()  # durations of the present kind
        self._quiet_until = 0.0  # when the next heartbeat is due, as long as fast pieces of that kind follow

    def __call__(self, piece: Piece) -> None:
        """Record that a piece begins and the one before is over; send a heartbeat if one is due."""
        now = self._clock()
        if piece == self._piece and now < self._quiet_until and now - self._began < FAST_SECONDS:
            self._same.append(now - self._began)  # fast path: small training steps take few microseconds
            self._began = now
            return
        if self._piece is not None:
            self._note_duration(self._piece, now - self._began)
        usual = self._usual.get(piece)
        if usual != self._sent or now - self._sent_at >= REPORT_SECONDS:
            self._send(piece, usual)
            self._sent, self._sent_at = usual, now
            now = self._clock()  # waiting for a full pipe is not part of the piece
        self._piece, self._began, self._same = piece, now, self._durations[piece]
        self._quiet_until = self._sent_at + REPORT_SECONDS if usual == 0.0 else 0.0

    def _note_duration(self, piece: Piece, seconds: float) -> None:
        durations = self._durations[piece]
        durations.append(seconds)
        if seconds >= FAST_SECONDS or self._usual.get(piece) != 0.0:  # else the median stays a fast one
            self._usual[piece] = round_up_tenths(statistics.median(durations))


def round_up_tenths(seconds: float) -> float:
    """Round up to tenths, so that a median that hardly moves stays equal; 0 below FAST_SECONDS."""
    return math.ceil(10 * seconds) / 10 if seconds >= FAST_SECONDS else 0.0
