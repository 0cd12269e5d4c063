"""A full disk under the database: it is said, nothing is half stored, reads go on. Writes go on once there is room."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, text

from api import probes
from api.dependencies import Service
from core.db.session import Database
from core.db.tables import metadata
from tests.api.test_jobs import IRIS, posted


@contextlib.contextmanager
def full(db: Database) -> Iterator[None]:
    """SQLite may not make its file larger; PostgreSQL says what it says when it cannot."""
    with full_sqlite(db) if db.dialect == "sqlite" else full_postgresql(db):
        yield


@contextlib.contextmanager
def full_sqlite(db: Database) -> Iterator[None]:
    with db.write() as connection:  # on a full disk the smallest write finds no room in the log; here it needs a page
        connection.exec_driver_sql("CREATE TABLE filler (x BLOB)")
        for trigger in (
            "CREATE TRIGGER one AFTER INSERT ON service_state BEGIN INSERT INTO filler VALUES (randomblob(20000)); END",
            "CREATE TRIGGER two AFTER UPDATE ON service_state BEGIN INSERT INTO filler VALUES (randomblob(20000)); END",
        ):
            connection.exec_driver_sql(trigger)

    def limit(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1")  # as many as there are

    def lift(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count=1073741823")

    event.listen(db._writer, "checkout", limit)
    try:
        yield
    finally:
        event.remove(db._writer, "checkout", limit)
        event.listen(db._writer, "checkout", lift)


@contextlib.contextmanager
def full_postgresql(db: Database) -> Iterator[None]:
    with db.write() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
            )
        )
        for table in metadata.tables:
            connection.execute(
                text(f"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {table} EXECUTE FUNCTION no_room()")
            )
    try:
        yield
    finally:
        with db.write() as connection:
            connection.execute(text("DROP FUNCTION no_room() CASCADE"))


def test_a_full_disk_is_said_and_gets_well(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.writes, "fresh_seconds", 0.0)
    job = posted(client)
    large = IRIS | {"metadata": {f"key-{number}": "x" * 400 for number in range(16)}}
    assert client.get("/readyz").status_code == 200
    with full(service.db):
        answers = [client.post("/v1/jobs", json=large) for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code != 201]
        assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {(507, "database_full")}
        assert "disk of the database is full" in refused[0].json()["detail"]
        listed = client.get("/v1/jobs?limit=100").json()["data"]
        assert len(listed) == 1 + len(answers) - len(refused), "what was refused is not there, what was accepted is"
        assert client.get(job["links"]["self"]).status_code == 200
    assert client.post("/v1/jobs", json=large).status_code == 201
    assert client.get("/readyz").status_code == 200


def test_readiness_says_that_the_disk_is_full(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.writes, "fresh_seconds", 0.0)
    with full(service.db):
        answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert answer.json()["checks"]["database"]["ok"]
    writes = {"ok": False, "required": True, "detail": "the disk of the database is full"}
    assert answer.json()["checks"]["writes"] == writes
    assert client.get("/readyz").json()["checks"]["writes"]["ok"]


def test_a_database_that_only_reads_is_not_ready(client: TestClient, service: Service) -> None:
    """A standby, a file that was made read only."""
    if service.db.dialect == "sqlite":
        event.listen(service.db._writer, "checkout", lambda connection, *_: connection.execute("PRAGMA query_only=ON"))
    else:
        with service.db.write() as connection:
            name = connection.execute(text("SELECT current_database()")).scalar_one()
            connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
        service.db._writer.dispose()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["writes"]["detail"] == "the database is read only"


def test_many_who_ask_cost_one_write(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Database] = []
    monkeypatch.setattr(probes, "probe_write", written.append)
    assert {client.get("/readyz").status_code for _ in range(10)} == {200}
    assert len(written) == 1
