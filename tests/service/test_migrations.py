"""The schema that the migrations make is the schema that the code believes in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from core.db.migrate import at_head, head, upgrade
from core.db.session import Database, open_database
from core.db.tables import metadata


def test_migrations_and_tables_agree(db: Database) -> None:
    with db.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_check_constraints_refuse_what_the_lifecycle_does_not_know(db: Database) -> None:
    # compare_metadata does not look at check constraints.
    columns = "job_id, status, desired, needs, attempt, losses, failures, rank, version, progress"
    for values in (
        "'j', 'runing', 'run', 'any', 0, 0, 0, 0, 1, '{}'",
        "'j', 'queued', 'walk', 'any', 0, 0, 0, 0, 1, '{}'",
        "'j', 'queued', 'run', 'tpu', 0, 0, 0, 0, 1, '{}'",
    ):
        with pytest.raises(Exception, match=r"(?i)check constraint"), db.write() as connection:
            connection.execute(text(f"INSERT INTO job_state ({columns}) VALUES ({values})"))  # noqa: S608 - literals


def test_head_is_the_newest_file() -> None:
    assert head() == "0005"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'empty.db'}"
    return str(request.getfixturevalue("empty_postgresql_url"))


def test_an_empty_database_is_not_at_head_until_it_is_upgraded(empty_url: str) -> None:
    database = open_database(empty_url)
    try:
        assert not at_head(database)
        upgrade(empty_url)
        assert at_head(database)
        upgrade(empty_url)
        assert at_head(database)
    finally:
        database.close()


def test_what_the_first_release_wrote_is_brought_along(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners for the claim to count, and metadata to search by; what the release before still writes is taken too."""
    database = open_database(empty_url)
    first = "INSERT INTO job (id, owner, kind, spec, created_at) VALUES (:id, 'alice', 'train', :spec, 1.0)"
    state = (
        "INSERT INTO job_state (job_id, status, desired, needs, attempt, losses, failures, rank, version, progress)"
        " VALUES (:id, 'queued', 'run', 'any', 0, 0, 0, 0.0, 1, '{}')"
    )
    try:
        with monkeypatch.context() as older:
            older.setattr(command, "upgrade", lambda config, _, full=command.upgrade: full(config, "0001"))
            upgrade(empty_url)
        with database.write() as connection:
            for job_id, spec in (("job_a", '{"metadata": {"team": "x"}}'), ("job_b", "{}")):
                connection.execute(text(first), {"id": job_id, "spec": spec})
                connection.execute(text(state), {"id": job_id})
        upgrade(empty_url)
        with database.write() as connection:
            connection.execute(text(first), {"id": "job_c", "spec": "{}"})
            connection.execute(text(state), {"id": "job_c"})
        with database.read() as connection:
            owners = connection.execute(text("SELECT job_id, owner FROM job_state ORDER BY job_id")).all()
            labels = connection.execute(text("SELECT * FROM job_label")).all()
        assert [tuple(row) for row in owners] == [("job_a", "alice"), ("job_b", "alice"), ("job_c", None)]
        assert [tuple(row) for row in labels] == [("job_a", "team", "x")]
    finally:
        database.close()


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_url) for _ in range(4)]:
            done.result()
    database = open_database(empty_url)
    try:
        assert at_head(database)
    finally:
        database.close()
