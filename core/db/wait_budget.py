"""How long somebody waits for the database. A server that hangs keeps its connections, and neither its own timeouts nor
those of TCP end such a wait; so the one who waits has to.
"""

import contextvars
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Unavailable


class WaitBudget:
    """The seconds that one request has for the database, all of its waits together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._rest: float | None = None  # what is left, while something else is waited for
        self._each_wait = False
        self.asking = 0  # blocks of the database's that it is in

    def remaining_seconds(self) -> float:
        """Seconds until it has waited long enough."""
        if self._each_wait:
            return self._seconds
        return self._ends - time.monotonic() if self._rest is None else self._rest

    @contextmanager
    def pause_clock(self) -> Iterator[None]:
        """Wait for something else: the body of the request, a change of a job."""
        if self._rest is not None:
            yield
            return
        self._rest = self._ends - time.monotonic()
        try:
            yield
        finally:
            self._ends, self._rest = time.monotonic() + self._rest, None

    def restart_per_wait(self) -> None:
        """The answer has begun and may go on for hours; from now on each wait has all of the seconds."""
        self._each_wait = True


_current: contextvars.ContextVar[WaitBudget | None] = contextvars.ContextVar("patience", default=None)


@contextmanager
def use_wait_budget(patience: WaitBudget) -> Iterator[None]:
    """All waits inside, those in threads that take over the context too, have this patience."""
    token = _current.set(patience)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def pause_wait_budget() -> Iterator[None]:
    """The seconds inside are not the database's."""
    patience = _current.get()
    if patience is None:
        yield
    else:
        with patience.pause_clock():
            yield


@contextmanager
def database_wait() -> Iterator[None]:
    """A block that reads or writes.

    Raises:
        Unavailable: it has waited long enough already.
    """
    patience = _current.get()
    if patience is None:
        yield
        return
    if patience.remaining_seconds() <= 0:
        raise Unavailable("The database did not answer in time.")
    patience.asking += 1
    try:
        yield
    finally:
        patience.asking -= 1


def seconds_left() -> float:
    """How long one may wait for the database now; infinite for those who have no patience to lose."""
    patience = _current.get()
    return math.inf if patience is None else patience.remaining_seconds()
