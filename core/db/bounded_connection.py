"""Connections to PostgreSQL with bounded waits. In a separate module, because SQLite does not need psycopg."""

import math
import time
from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from core.db.wait_budget import seconds_left

CONNECT_SECONDS: Final = 5
INTERVAL_SECONDS: Final = 0.1  # psycopg's default: how often a wait can be interrupted


class BoundedConnection(psycopg.Connection[Any]):
    """A connection whose every wait is bounded, also in COMMIT and ROLLBACK. A wait that takes too long closes it."""

    longest_wait = math.inf  # seconds, also for callers without a wait budget

    def wait(self, gen: PQGen[Any], interval: float = INTERVAL_SECONDS, timeout: float | None = None) -> Any:
        most = min(seconds_left(), self.longest_wait, math.inf if timeout is None else timeout)
        if most <= 0 and self.info.transaction_status is TransactionStatus.INTRANS:
            self.close()  # nothing more is sent, above all no COMMIT: the client gets an error
            raise psycopg.OperationalError("the database did not answer in time")
        ends = time.monotonic() + most
        try:
            return super().wait(gen, interval=interval, timeout=None if most == math.inf else max(0.0, most))
        except psycopg.OperationalError:
            if time.monotonic() >= ends:
                self.close()  # a late answer would count as the answer to the next statement
            raise


def connect_bounded(arguments: Any, named: dict[str, Any], longest_wait: float) -> BoundedConnection:
    """As psycopg.connect, within the rest of the wait budget."""
    seconds = min(CONNECT_SECONDS, seconds_left())
    if seconds <= 0:
        raise psycopg.OperationalError("the database did not answer in time")
    connection = BoundedConnection.connect(*arguments, **named | {"connect_timeout": math.ceil(seconds)})
    connection.longest_wait = longest_wait
    return connection
