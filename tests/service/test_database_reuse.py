"""The tests' own databases: one that is used again holds nothing of the test before, and a changed one is not used."""

import psycopg
import pytest

from core.db.session import Database, open_database
from tests.support.database_reuse import MOST_ROWS, Blank
from tests.support.jobs import submitted


def test_a_restored_database_is_as_the_first_one(postgresql_url: str, blank: Blank) -> None:
    before = Blank.of(postgresql_url)
    database = open_database(postgresql_url)
    job_id = submitted(database)
    database.close()
    with psycopg.connect(postgresql_url) as connection:
        assert connection.execute("SELECT count(*) FROM job WHERE id = %s", (job_id,)).fetchone() == (1,)
        connection.execute("DELETE FROM project")
    assert Blank.of(postgresql_url) != before
    assert blank.restore(postgresql_url)
    assert Blank.of(postgresql_url) == before == blank


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE job ADD COLUMN more INTEGER",
        "DROP INDEX ix_job_project_id",
        "ALTER TABLE job DISABLE TRIGGER job_project_insert",
        "CREATE TABLE further (id INTEGER)",
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = ''1MB''', current_database()); END $$",
        f"INSERT INTO project SELECT 'p' || n, 0, 'me' FROM generate_series(0, {MOST_ROWS}) AS n",  # noqa: S608
    ],
)
def test_a_changed_database_is_not_used_again(postgresql_url: str, blank: Blank, change: str) -> None:
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(change)
    assert not blank.restore(postgresql_url)


def test_a_database_that_somebody_uses_is_not_used_again(postgresql_url: str, blank: Blank) -> None:
    with psycopg.connect(postgresql_url):
        assert not blank.restore(postgresql_url)
    assert blank.restore(postgresql_url)


def test_what_a_test_sees_is_blank(db: Database) -> None:
    """On both kinds, whatever ran before."""
    with db.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM job").scalar_one() == 0
