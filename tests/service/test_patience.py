"""The seconds that a request has for the database: all waits together, and nothing else of what it waits for."""

import threading
import time

import pytest
from sqlalchemy import Insert, insert, select, text

from core.db.session import Database, is_transient, open_database
from core.db.tables import service_state
from core.db.wait_budget import WaitBudget, pause_wait_budget, use_wait_budget
from core.errors import Unavailable


def test_only_waits_for_the_database_count() -> None:
    patience = WaitBudget(0.5)
    with use_wait_budget(patience), pause_wait_budget():
        time.sleep(0.6)
        assert patience.remaining_seconds() > 0.3
        with pause_wait_budget():
            time.sleep(0.1)
    assert patience.remaining_seconds() > 0.3
    time.sleep(0.5)
    assert patience.remaining_seconds() < 0.1
    patience.restart_per_wait()
    assert patience.remaining_seconds() == 0.5


def test_a_statement_ends_with_the_patience(postgresql_url: str) -> None:
    db = open_database(postgresql_url)
    try:
        with (
            pytest.raises(Exception, match="timeout") as caught,
            use_wait_budget(WaitBudget(0.3)),
            db.read() as connection,
        ):
            connection.execute(text("SELECT pg_sleep(10)"))
        assert is_transient(caught.value)
        with db.read() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
    finally:
        db.close()


def write_slowly(db: Database, statement: Insert) -> None:
    with db.write() as connection:
        connection.execute(statement)
        time.sleep(0.6)


def test_what_waited_too_long_is_not_committed(postgresql_url: str) -> None:
    db = open_database(postgresql_url)
    try:
        late = insert(service_state).values(name="late", at=1.0)
        with pytest.raises(Exception, match="in time") as caught, use_wait_budget(WaitBudget(0.5)):
            write_slowly(db, late)
        assert is_transient(caught.value)
        with db.read() as connection:
            assert connection.execute(select(service_state.c.at)).all() == []
    finally:
        db.close()


def test_a_silent_server_has_lost_the_connection(postgresql_url: str) -> None:
    """For threads that serve nobody in particular."""
    db = open_database(postgresql_url, longest_wait=0.3)
    try:
        with pytest.raises(Exception, match="timeout") as caught, db.read() as connection:
            connection.execute(text("SELECT pg_sleep(10)"))
        assert is_transient(caught.value)
    finally:
        db.close()


def test_nobody_begins_when_it_is_too_late(db: Database) -> None:
    with use_wait_budget(WaitBudget(0.0)), pytest.raises(Unavailable), db.read():
        pass


def test_the_turn_to_write_is_waited_for_no_longer(sqlite_url: str) -> None:
    db, holds, done = open_database(sqlite_url), threading.Event(), threading.Event()

    def hold() -> None:
        with db.write():
            holds.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(30)
    with use_wait_budget(WaitBudget(0.2)), pytest.raises(Unavailable), db.write():
        pass
    assert thread.is_alive()
    done.set()
    thread.join()
    db.close()
