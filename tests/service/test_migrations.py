"""The schema that the migrations make is the schema that the code believes in."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
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
    assert head() == "0001"


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


def test_several_processes_may_upgrade_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(upgrade, empty_url) for _ in range(4)]:
            done.result()
    database = open_database(empty_url)
    try:
        assert at_head(database)
    finally:
        database.close()
