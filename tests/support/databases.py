"""Fixtures: a fresh, migrated database for every test that asks, on SQLite and on a real PostgreSQL.

TEST_DATABASE_URL names a PostgreSQL to use instead of the wheel's; its user must be allowed to make databases.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy.engine import make_url

from core.db.migrate import upgrade_schema
from core.db.session import Database, open_database
from tests.support.database_reuse import Blank, UsedDatabases
from tests.support.postgres import shared_server

POSTGRESQL_IS_SLOW = pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
"""For tests whose statements others try on PostgreSQL too: there they are part of `make test-slow`."""


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server; `template` is a migrated database of this process, copied for every test."""

    url: str
    template: str

    def address(self, name: str) -> str:
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def make(self, name: str, template: str | None = None) -> str:
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._run(statement)
        return self.address(name)

    def drop(self, name: str) -> None:
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def refusing(self, url: str) -> Iterator[None]:
        """An outage: every connection to this database ends, and no new one is let in."""
        name = make_url(url).database or ""
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        kill = sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {}")
        self._run(allow.format(sql.Identifier(name), sql.SQL("false")))
        try:
            self._run(kill.format(sql.Literal(name)))
            yield
        finally:
            self._run(allow.format(sql.Identifier(name), sql.SQL("true")))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, and this process's migrated template on it."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    url = os.environ.get("TEST_DATABASE_URL") or shared_server(folder)
    server = Server(url, f"template_{secrets.token_hex(6)}")
    upgrade_schema(server.make(server.template))
    yield server
    server.drop(server.template)


@pytest.fixture(scope="session")
def used_databases(postgresql_server: Server) -> Iterator[UsedDatabases]:
    """Databases of tests that have ended, blank again."""
    used = UsedDatabases()
    yield used
    for name in used.take_all():
        postgresql_server.drop(name)


@pytest.fixture(scope="session")
def blank(postgresql_server: Server) -> Blank:
    """What every database holds at first."""
    return Blank.of(postgresql_server.address(postgresql_server.template))


@pytest.fixture
def postgresql_url(postgresql_server: Server, used_databases: UsedDatabases, blank: Blank) -> Iterator[str]:
    """The URL of a migrated PostgreSQL database without a row of any other test."""
    name = used_databases.take()
    if name is None:
        name = f"test_{secrets.token_hex(6)}"
        postgresql_server.make(name, postgresql_server.template)
    url = postgresql_server.address(name)
    yield url
    try:
        reusable = blank.restore(url)
    except psycopg.Error:  # no connections allowed any more, or a table is gone
        reusable = False
    if reusable:
        used_databases.put(name)
    else:
        postgresql_server.drop(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: Server) -> Iterator[str]:
    """The URL of a PostgreSQL database with nothing in it."""
    name = f"test_{secrets.token_hex(6)}"
    yield postgresql_server.make(name)
    postgresql_server.drop(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    upgrade_schema(f"sqlite:///{path}")
    return path


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """The URL of a fresh, migrated SQLite database."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'test.db')}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, migrated database, once on each kind."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A fresh, migrated database, open, once on each kind."""
    database = open_database(database_url, pool_size=8)
    yield database
    database.close()
