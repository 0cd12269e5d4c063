"""Reads that cannot write, writes that lose nothing, and errors that say whether to try again."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest
from sqlalchemy import exc, insert, select, text, update

from core.db.session import Database, database_now, is_transient, open_database
from core.db.tables import service_state
from core.errors import Misconfigured, Unavailable


def value(db: Database, name: str) -> float | None:
    with db.read() as connection:
        found = connection.execute(select(service_state.c.at).where(service_state.c.name == name)).scalar_one_or_none()
        return None if found is None else float(found)


def test_the_clock_is_unix_time_in_seconds(db: Database) -> None:
    with db.read() as connection:
        told = connection.execute(select(database_now())).scalar_one()
    assert isinstance(told, float)
    assert told == pytest.approx(time.time(), abs=5.0)


def test_a_write_that_raises_leaves_nothing(db: Database) -> None:
    class Halt(Exception):  # noqa: N818 - it stops a block
        pass

    with suppress(Halt), db.write() as connection:
        connection.execute(insert(service_state).values(name="x", at=1.0))
        raise Halt
    assert value(db, "x") is None


def test_sqlite_readers_cannot_write(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    try:
        with pytest.raises(exc.OperationalError, match="readonly"), database.read() as connection:
            connection.execute(insert(service_state).values(name="x", at=1.0))
    finally:
        database.close()


def test_sqlite_is_durable_and_checks_references(sqlite_url: str) -> None:
    database = open_database(sqlite_url)
    try:
        with database.write() as connection:
            told = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            }
    finally:
        database.close()
    full = 2
    assert told == {"journal_mode": "wal", "synchronous": full, "foreign_keys": 1, "busy_timeout": 5000}


def test_postgresql_limits_every_statement(postgresql_url: str) -> None:
    database = open_database(postgresql_url)
    try:
        with database.write() as connection:
            told = [
                connection.execute(text(f"SHOW {name}")).scalar_one()
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
            ]
    finally:
        database.close()
    assert told == ["15s", "5s", "30s"]


def test_no_update_is_lost_between_two_openings_of_one_database(database_url: str) -> None:
    """Read, then write, from many threads and two pools: a deferred transaction would lose or refuse most of them."""
    pools = [open_database(database_url), open_database(database_url)]
    with pools[0].write() as connection:
        connection.execute(insert(service_state).values(name="count", at=0.0))

    def add_one(index: int) -> None:
        row = service_state.c
        with pools[index % 2].write() as connection:
            query = select(row.at).where(row.name == "count").with_for_update()
            count = connection.execute(query).scalar_one()
            connection.execute(update(service_state).where(row.name == "count").values(at=count + 1))

    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(add_one, range(200)))
        assert value(pools[0], "count") == 200.0
    finally:
        for pool in pools:
            pool.close()


@contextmanager
def caught() -> Iterator[list[BaseException]]:
    errors: list[BaseException] = []
    try:
        yield errors
    except Exception as error:  # noqa: BLE001 - the test looks at it
        errors.append(error)


def test_mistakes_of_ours_are_not_transient(db: Database) -> None:
    with caught() as errors, db.read() as connection:
        connection.execute(text("SELECT nonsense FROM nowhere"))
    with caught() as more, db.write() as connection:
        connection.execute(insert(service_state), [{"name": "x", "at": 1.0}, {"name": "x", "at": 1.0}])
    assert [is_transient(error) for error in errors + more] == [False, False]


def test_an_absent_or_busy_database_is_transient(sqlite_url: str, postgresql_url: str) -> None:
    nobody = open_database("postgresql://postgres@127.0.0.1:9/x")
    with caught() as absent, nobody.read():
        pass
    writer, rival = open_database(sqlite_url), open_database(sqlite_url)
    with writer.write() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout=10")
    with rival.write(), caught() as busy, writer.write() as connection:
        connection.exec_driver_sql("SELECT 1")
    served = open_database(postgresql_url)
    with caught() as killed, served.write() as connection:
        connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    with caught() as slow, served.write() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 10"))
        connection.execute(text("SELECT pg_sleep(5)"))
    for database in (nobody, writer, rival, served):
        database.close()
    errors = [*absent, *busy, *killed, *slow, Unavailable()]
    assert [is_transient(error) for error in errors] == [True] * 5


@pytest.mark.parametrize("url", ["mysql://u:secret@h/x", "not a url with secret", "sqlite://", "sqlite:///:memory:"])
def test_other_databases_are_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(Misconfigured) as caught_error:
        open_database(url)
    assert "secret" not in str(caught_error.value)


def test_a_connection_that_comes_back_after_the_end_is_closed(database_url: str) -> None:
    """Nobody empties the pool any more, and a server has only so many connections."""
    db = open_database(database_url)
    with db.read() as connection:
        held = connection.connection.dbapi_connection
        db.close()
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    assert held is not None
    with pytest.raises(Exception, match="closed"):
        held.cursor().execute("SELECT 1")
