"""Access to the database: `read` (each statement sees the newest commit) and `write` (one short transaction)."""

import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Double, Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ColumnElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from core.db.pool import ShrinkingPool, UncheckedPool
from core.db.wait_budget import seconds_left, start_database_wait
from core.errors import Misconfigured, Unavailable

_POSTGRESQL = {
    "options": "-c statement_timeout=15000 -c lock_timeout=5000 -c idle_in_transaction_session_timeout=30000",
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 10000,
    "application_name": "basin",
}

_BUSY_SECONDS = 5.0
_WRITER_TURN_SECONDS = 15.0

# Connection lost, transaction rolled back, out of resources, operator intervention; then idle in transaction,
# read-only (a standby), and lock timeout.
_PASSING_SQLSTATES = ("08", "40", "53", "57", "25P03", "25006", "55P03")

# SQLite's primary result codes: busy, locked, out of memory, read only, interrupted, I/O error, full, cannot open,
# protocol (a race for the write-ahead log). All others are bugs of ours.
_PASSING_SQLITE = {5, 6, 7, 8, 9, 10, 13, 14, 15}


# SQLITE_FULL, and the code where a full disk has no room for the index of the write-ahead log (SHMSIZE).
_FULL_SQLITE = {13, 10 | 19 << 8}
_FULL_SQLSTATE = "53100"
_READ_ONLY_SQLITE = 8
_READ_ONLY_SQLSTATE = "25006"


class _Now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, read when the statement runs."""

    type = Double()
    inherit_cache = True


@compiles(_Now, "sqlite")
def _sqlite_now(element: _Now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Now, "postgresql")
def _postgresql_now(element: _Now, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ARG001 - as above
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


def database_now() -> ColumnElement[float]:
    """The database's clock as an SQL expression; no decision depends on any other clock."""
    return _Now()


class Database:
    """A pool of connections. `read` and `write` give connections; close it when done."""

    def __init__(self, reader: Engine, writer: Engine) -> None:
        self._reader = reader
        self._writer = writer
        self.dialect = writer.dialect.name
        # SQLite has one writer at a time. Its busy handler sleeps for growing times; our lock is a queue.
        self._turn = threading.Lock() if self.dialect == "sqlite" else None
        self._closed = False
        for engine in (reader, writer):
            event.listen(engine, "checkin", self._on_checkin)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for plain reads: every statement sees the newest commit, nothing is locked."""
        with _database_wait(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def read_snapshot(self) -> Iterator[Connection]:
        """A connection for reads that belong together: all of them see the same snapshot."""
        with _database_wait(), self._reader.connect() as connection:
            if self.dialect == "sqlite":
                connection.exec_driver_sql("BEGIN")  # ends when the connection goes back to the pool
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One write transaction: committed at the end of the block, rolled back when it raises. Do not nest."""
        with _database_wait(), self._write_lock(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        if self._turn is None:
            yield
            return
        if not self._turn.acquire(timeout=max(0.0, min(_WRITER_TURN_SECONDS, seconds_left()))):
            raise Unavailable("the database has been busy with another write for too long")
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close the idle connections; one that a thread still uses is closed when it is returned."""
        self._closed = True
        self._reader.dispose()
        self._writer.dispose()

    def _on_checkin(self, connection: Any, record: object) -> None:
        """Close a connection that is returned after `close`: the pool is not emptied again."""
        if self._closed and connection is not None:
            connection.close()


@contextmanager
def _database_wait() -> Iterator[None]:
    """A block that reads or writes. Raises Unavailable where the wait budget is spent."""
    budget = start_database_wait()
    try:
        yield
    finally:
        if budget is not None:
            budget.asking -= 1


def open_database(url: str, pool_size: int = 40, *, trusting: bool = False, longest_wait: float = math.inf) -> Database:
    """Open a database by its SQLAlchemy URL; nothing is connected before the first use.

    `trusting`: a PostgreSQL connection that was used a moment ago is used again without a ping. That halves the round
    trips, and is for callers that retry after every transient failure. A PostgreSQL connection without an answer for
    `longest_wait` seconds after a statement counts as lost.
    """
    try:
        parsed = make_url(url)
    except exc.ArgumentError:
        # The message of SQLAlchemy's error holds the whole URL, password included.
        raise Misconfigured("the database URL cannot be parsed") from None
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed, pool_size)
        case "postgresql":
            return _open_postgresql(parsed, pool_size, UncheckedPool if trusting else ShrinkingPool, longest_wait)
        case other:
            raise Misconfigured(f"database {other!r} is not supported; use sqlite:///file.db or postgresql://…")


def _open_postgresql(url: URL, pool_size: int, pool: type[ShrinkingPool], longest_wait: float) -> Database:
    from core.db.bounded_connection import connect_bounded

    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_POSTGRESQL,
        isolation_level="READ COMMITTED",
        poolclass=pool,
        pool_use_lifo=True,
        pool_size=pool_size,
        max_overflow=10,
        pool_timeout=5,
        pool_pre_ping=True,
    )
    event.listen(
        engine, "do_connect", lambda _dialect, _record, args, named: connect_bounded(args, named, longest_wait)
    )
    return Database(engine.execution_options(isolation_level="AUTOCOMMIT"), engine)


def _open_sqlite(url: URL, pool_size: int) -> Database:
    if not url.database or url.database == ":memory:":
        raise Misconfigured("an SQLite database must be a file: the service's processes share it")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    arguments = {"timeout": _BUSY_SECONDS, "check_same_thread": False, "isolation_level": None}
    reader = create_engine(url, connect_args=arguments, pool_size=pool_size, max_overflow=10, pool_timeout=5)
    writer = create_engine(url, connect_args=arguments, pool_size=2, max_overflow=2, pool_timeout=5)
    event.listen(reader, "connect", _on_reader_connect)
    event.listen(writer, "connect", _on_writer_connect)
    event.listen(writer, "begin", _begin_immediate)
    return Database(reader, writer)


def _on_writer_connect(connection: Any, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    connection.execute(f"PRAGMA busy_timeout={int(_BUSY_SECONDS * 1000)}")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # When two connections switch a new file to WAL at once, SQLite refuses one of them, whatever its busy_timeout.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _on_reader_connect(connection: Any, record: object) -> None:
    _on_writer_connect(connection, record)
    connection.execute("PRAGMA query_only=ON")


def _begin_immediate(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails at once with "database is locked".
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def is_transient(error: BaseException) -> bool:
    """Whether the database is unavailable or busy, so that the same call may succeed in a moment."""
    if isinstance(error, Unavailable | exc.TimeoutError):
        return True
    if not isinstance(error, exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    sqlite_code = getattr(error.orig, "sqlite_errorcode", None)
    if sqlite_code is not None:
        return (sqlite_code & 0xFF) in _PASSING_SQLITE
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:
        # psycopg could not connect, or lost the connection before the server gave a reason.
        return isinstance(error, exc.OperationalError | exc.InterfaceError)
    return str(sqlstate).startswith(_PASSING_SQLSTATES)


def is_full(error: BaseException) -> bool:
    """Whether the disk of the database is full."""
    sqlite_code, sqlstate = _error_codes(error)
    return sqlite_code in _FULL_SQLITE or sqlstate == _FULL_SQLSTATE


def is_read_only(error: BaseException) -> bool:
    """Whether the database is read-only: a standby, or a file without write permission."""
    sqlite_code, sqlstate = _error_codes(error)
    return (sqlite_code or 0) & 0xFF == _READ_ONLY_SQLITE or sqlstate == _READ_ONLY_SQLSTATE


def _error_codes(error: BaseException) -> tuple[int | None, str | None]:
    """The extended result code of SQLite, or the SQLSTATE of PostgreSQL."""
    cause = error.orig if isinstance(error, exc.DBAPIError) else None
    return getattr(cause, "sqlite_errorcode", None), getattr(cause, "sqlstate", None)
