"""SIGSTOP for processes that share a database with others."""

import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress

import psutil

from tests.support.service import Service, until

LOCK_SECONDS = 2.0  # longer than any write of ours takes on a loaded machine


def signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        process.send_signal(number)


@contextmanager
def stopped_between_writes(service: Service, processes: Sequence[psutil.Process]) -> Iterator[None]:
    """The processes are stopped inside the block, and continue after it, also when it fails.

    On SQLite a process that is stopped inside a write transaction keeps the lock, and nobody can write until it
    continues. So they are stopped at a moment when the database can be written.
    """

    def stop() -> bool:
        signal_all(processes, signal.SIGSTOP)
        if can_write(service):
            return True
        signal_all(processes, signal.SIGCONT)
        return False

    try:
        until("the processes are stopped between two writes", stop)
        yield
    finally:
        with suppress(psutil.NoSuchProcess):
            signal_all(processes, signal.SIGCONT)


def can_write(service: Service) -> bool:
    """Whether SQLite's write lock is free; other databases lock rows."""
    kind, _, path = service.database_url.partition(":///")
    if not kind.startswith("sqlite"):
        return True
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            return False
    return True
