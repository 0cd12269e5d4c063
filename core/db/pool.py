"""A connection pool that shrinks: an idle process holds one connection, a busy one as many as it uses at a time."""

import time
from contextlib import suppress
from typing import ClassVar, Final, cast

from sqlalchemy.pool import ConnectionPoolEntry, QueuePool
from sqlalchemy.util.queue import Empty, Queue

_RETURNED: Final = "returned at"


class ShrinkingPool(QueuePool):
    """A QueuePool that closes idle connections. It needs `use_lifo`: the least recently used ones are at the bottom.

    SQLAlchemy's own pools either keep every connection that a busy moment opened, or open and close connections all the
    time while more than `pool_size` are in use. Here one idle connection is checked whenever another is returned.
    """

    trust_seconds: ClassVar[float] = 0.0  # a connection used within this time is not pinged
    idle_seconds = 10.0  # a connection that was not used for this long is closed
    patience_seconds = 0.05  # about the time to connect; most connections in use are returned by then

    def _do_get(self) -> ConnectionPoolEntry:
        record = self._await_returned() or super()._do_get()
        if time.monotonic() - _returned_at(record) < self.trust_seconds:
            record.fresh = True  # type: ignore[attr-defined] # as SQLAlchemy marks a new connection
        return record

    def _await_returned(self) -> ConnectionPoolEntry | None:
        """A connection that is returned within `patience_seconds`, if any are in use."""
        if self.checkedout() > 0:
            with suppress(Empty):
                return self._pool.get(True, self.patience_seconds)
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
        """Take a connection that has been idle for too long out of the queue; the last one stays."""
        queue = cast("Queue[ConnectionPoolEntry]", self._pool)
        with queue.mutex:
            waiting = queue.queue
            if len(waiting) > 1 and time.monotonic() - _returned_at(waiting[0]) > self.idle_seconds:
                return waiting.popleft()
            return None


class UncheckedPool(ShrinkingPool):
    """For processes that retry every call whose connection was lost: without the ping, half the round trips."""

    trust_seconds: ClassVar[float] = 3.0


def _returned_at(record: ConnectionPoolEntry) -> float:
    return float(record.info.get(_RETURNED, 0.0))
