"""How long a request waits for the database.

A server that hangs keeps its connections open, and neither its own timeouts nor those of TCP end such a wait; so the
client has to end it.
"""

import contextvars
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Unavailable


class WaitBudget:
    """The seconds that one request may wait for the database, all of its waits together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._rest: float | None = None  # what is left, while the clock is paused
        self._each_wait = False
        self.asking = 0  # blocks that wait for the database now

    def remaining_seconds(self) -> float:
        """Seconds that are left."""
        if self._each_wait:
            return self._seconds
        return self._ends - time.monotonic() if self._rest is None else self._rest

    @contextmanager
    def pause_clock(self) -> Iterator[None]:
        """Do not count the time inside: a wait for something else, as the request's body or a change of a job."""
        if self._rest is not None:
            yield
            return
        self._rest = self._ends - time.monotonic()
        try:
            yield
        finally:
            self._ends, self._rest = time.monotonic() + self._rest, None

    def renew(self) -> None:
        """Begin the budget again: the request has done a part of a long work, as a piece of an upload."""
        self._ends = time.monotonic() + self._seconds
        if self._rest is not None:
            self._rest = self._seconds

    def restart_per_wait(self) -> None:
        """Give each further wait the whole budget: the answer has begun and may take hours."""
        self._each_wait = True


_current: contextvars.ContextVar[WaitBudget | None] = contextvars.ContextVar("patience", default=None)


@contextmanager
def use_wait_budget(patience: WaitBudget) -> Iterator[None]:
    """All waits inside share this budget, also those in threads that copy the context."""
    token = _current.set(patience)
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def pause_wait_budget() -> Iterator[None]:
    """The seconds inside do not count as waits for the database."""
    patience = _current.get()
    if patience is None:
        yield
    else:
        with patience.pause_clock():
            yield


def renew_wait_budget() -> None:
    """Begin the current budget again, if there is one."""
    patience = _current.get()
    if patience is not None:
        patience.renew()


def start_database_wait() -> WaitBudget | None:
    """The budget of a block that reads or writes and takes one off its `asking` at the end; None: there is no budget.

    Raises:
        Unavailable: the budget is spent.
    """
    patience = _current.get()
    if patience is None:
        return None
    if patience.remaining_seconds() <= 0:
        raise Unavailable("The database did not answer in time.")
    patience.asking += 1
    return patience


def seconds_left() -> float:
    """The seconds left of the current wait budget; infinite where there is none."""
    patience = _current.get()
    return math.inf if patience is None else patience.remaining_seconds()
