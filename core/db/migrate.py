"""Bring a database to the newest schema, and say whether it is there."""

import re
from pathlib import Path

from sqlalchemy import inspect, text

from core.db.session import Database, open_database

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_FILE = re.compile(r"(\d{4})_\w+\.py")
# Any fixed number will do: all who migrate must ask for the same one.
_LOCK = 0x6261_7369_6E


def head() -> str:
    """The newest revision, from the file names: the history is one line, and alembic is slow to import."""
    return max(found[1] for path in MIGRATIONS.iterdir() if (found := _FILE.fullmatch(path.name)))


def revision(database: Database) -> str | None:
    """The revision that the database is at; None when it was never migrated."""
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def at_head(database: Database) -> bool:
    """Whether the database has exactly the schema of this release."""
    return revision(database) == head()


def is_behind(database: Database) -> bool:
    """Whether migrations are missing. A schema newer than this release is fine: migrations keep its release running."""
    return (revision(database) or "") < head()


def upgrade(url: str) -> None:
    """Run the migrations that are missing, all or none; several processes may call this at once."""
    database = open_database(url, pool_size=1)
    try:
        if not at_head(database):
            _migrate(database)
    finally:
        database.close()


def _migrate(database: Database) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / "environment").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(MIGRATIONS).replace("%", "%%"))
    with database.write() as connection:
        if database.dialect == "postgresql":
            # SQLite's write transaction is itself the lock. A table may take longer to change than a query may run.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
