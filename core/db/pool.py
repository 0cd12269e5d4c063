"""A pool of connections that shrinks again: an idle process holds one, a busy one as many as it uses at a time."""

import time
from contextlib import suppress
from typing import ClassVar, Final, cast

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util.queue import Empty, Queue

IDLE_SECONDS: Final = 10.0  # a connection that nobody wanted for so long is closed
PATIENCE: Final = 0.05  # to connect takes about as long, and most who hold a connection are done by then
_RETURNED: Final = "returned at"


class ShrinkingPool(QueuePool):
    """To be used with `use_lifo`: the connections at the bottom are those that were needed longest ago.

    SQLAlchemy's own pools either keep all that a busy moment has opened, or open and close again and again while more
    than `pool_size` are in use. One is looked at whenever another one comes back, which in a living process is often.
    """

    trust_seconds: ClassVar[float] = 0.0  # a connection that was used so lately is not pinged

    def _do_get(self) -> ConnectionPoolEntry:
        record = self._await_returned() or super()._do_get()
        if time.monotonic() - _returned_at(record) < self.trust_seconds:
            record.fresh = True  # type: ignore[attr-defined] # as SQLAlchemy itself marks one that was just opened
        return record

    def _await_returned(self) -> ConnectionPoolEntry | None:
        """A connection that comes back in a moment."""
        if self.checkedout() > 0:
            with suppress(Empty):
                return self._pool.get(True, PATIENCE)
        return None

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()
        super()._do_return_conn(record)
        surplus = self._take_surplus()
        if surplus is not None:
            try:
                surplus.close()
            finally:
                self._dec_overflow()

    def _take_surplus(self) -> ConnectionPoolEntry | None:
        """Out of the queue, a connection that has been idle for too long; the last one stays."""
        queue = cast("Queue[ConnectionPoolEntry]", self._pool)
        with queue.mutex:
            waiting = queue.queue
            if len(waiting) > 1 and time.monotonic() - _returned_at(waiting[0]) > IDLE_SECONDS:
                return waiting.popleft()
            return None


class UncheckedPool(ShrinkingPool):
    """For processes whose every call is tried again when its connection turns out to be gone: half the round trips."""

    trust_seconds: ClassVar[float] = 3.0


def _returned_at(record: ConnectionPoolEntry) -> float:
    return float(record.info.get(_RETURNED, 0.0))
