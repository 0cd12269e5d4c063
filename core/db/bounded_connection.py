"""Connections to PostgreSQL that do not wait for ever. In a file of its own: SQLite does without psycopg."""

import math
import time
from typing import Any, Final

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

from core.db.wait_budget import seconds_left

CONNECT_SECONDS: Final = 5
INTERVAL_SECONDS: Final = 0.1  # psycopg's own; after so long a wait can be interrupted


class BoundedConnection(psycopg.Connection[Any]):
    """One whose every wait ends: a statement, COMMIT and ROLLBACK included. Afterwards it is closed."""

    longest_wait = math.inf  # seconds; for those who have no patience of their own

    def wait(self, gen: PQGen[Any], interval: float = INTERVAL_SECONDS, timeout: float | None = None) -> Any:
        most = min(seconds_left(), self.longest_wait, math.inf if timeout is None else timeout)
        if most <= 0 and self.info.transaction_status is TransactionStatus.INTRANS:
            self.close()  # nothing more is sent, COMMIT least of all: the client hears that it failed
            raise psycopg.OperationalError("the database did not answer in time")
        ends = time.monotonic() + most
        try:
            return super().wait(gen, interval=interval, timeout=None if most == math.inf else max(0.0, most))
        except psycopg.OperationalError:
            if time.monotonic() >= ends:
                self.close()  # what still comes would be taken for the answer to the next question
            raise


def connect_bounded(arguments: Any, named: dict[str, Any], longest_wait: float) -> BoundedConnection:
    """As psycopg.connect, within what is left of the patience."""
    seconds = min(CONNECT_SECONDS, seconds_left())
    if seconds <= 0:
        raise psycopg.OperationalError("the database did not answer in time")
    connection = BoundedConnection.connect(*arguments, **named | {"connect_timeout": math.ceil(seconds)})
    connection.longest_wait = longest_wait
    return connection
