"""Signs of life: a long computation says which piece of work it begins, so that silence means that it hangs.

A piece is what can be waited for: one forward pass, one product with a Hessian, one piece of a file. Only the thread
that does the work reports, between pieces: processor time that is burnt is no sign of life, for a deadlock may spin.

On a GPU work is queued, and a piece that "begins" is one that the host begins to queue. core.engine.pacing makes each
report wait for the device, so that it comes at most half a second, or two pieces, before the device gets there.
"""

import math
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal, TypeVar

REPORT_SECONDS: Final = 0.25  # a sign goes out as often, however fast the pieces are
FAST_SECONDS: Final = 0.05  # shorter pieces are as good as none: nobody waits for a multiple of them
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
    "other",  # what comes after the last piece of a kind
]
ReportAlive = Callable[[Piece], None]
"""Called when a piece begins; the one before is then over."""

T = TypeVar("T")


def report_nothing(piece: Piece) -> None:
    """Nobody watches."""


def report_each(report_alive: ReportAlive, piece: Piece, items: Iterable[T]) -> Iterator[T]:
    """The items; what is done with each of them is a piece."""
    for item in items:
        report_alive(piece)
        yield item
    report_alive("other")


class PieceTimer:
    """A `ReportAlive` that tells a supervisor which piece of work begins, and how long its kind usually takes.

    The supervisor's limit follows from that. So a sign always goes out when the usual duration is another one than the
    supervisor knows of; otherwise when the last sign is REPORT_SECONDS old. Most fast pieces cost one look at the clock
    and no frame.
    """

    def __init__(
        self, send: Callable[[Piece, float | None], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`send` takes the kind and the median seconds of that kind so far; None: no piece of it is complete yet."""
        self._send = send
        self._clock = clock
        self._durations: defaultdict[Piece, deque[float]] = defaultdict(lambda: deque(maxlen=REMEMBERED))
        self._usual: dict[Piece, float] = {}
        self._piece: Piece | None = None
        self._began = self._sent_at = clock()
        self._sent: float | None = None
        self._same: deque[float] = deque()  # durations of the present kind
        self._quiet_until = 0.0  # when the next sign is due, as long as fast pieces of that kind follow one another

    def __call__(self, piece: Piece) -> None:
        """A piece begins, the one before is over."""
        now = self._clock()
        if piece == self._piece and now < self._quiet_until and now - self._began < FAST_SECONDS:
            self._same.append(now - self._began)  # the small steps of a training have no microsecond to lose
            self._began = now
            return
        if self._piece is not None:
            self._note_duration(self._piece, now - self._began)
        usual = self._usual.get(piece)
        if usual != self._sent or now - self._sent_at >= REPORT_SECONDS:
            self._send(piece, usual)
            self._sent, self._sent_at = usual, now
            now = self._clock()  # a pipe that is full held us back, which is no work
        self._piece, self._began, self._same = piece, now, self._durations[piece]
        self._quiet_until = self._sent_at + REPORT_SECONDS if usual == 0.0 else 0.0

    def _note_duration(self, piece: Piece, seconds: float) -> None:
        durations = self._durations[piece]
        durations.append(seconds)
        if seconds >= FAST_SECONDS or self._usual.get(piece) != 0.0:  # else the median stays a fast one
            self._usual[piece] = round_up_tenths(statistics.median(durations))


def round_up_tenths(seconds: float) -> float:
    """Up to tenths, so that a median that hardly moves is no news; 0 for what is fast."""
    return math.ceil(10 * seconds) / 10 if seconds >= FAST_SECONDS else 0.0
