"""Upgrades a database to the newest schema, and checks whether a release can run on it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import inspect, select, text

from core.db.session import Database, open_database
from core.db.tables import generation
from core.errors import Misconfigured

if TYPE_CHECKING:
    from alembic.config import Config

# Releases of one generation can share a database, so that processes can be replaced one at a time. The number grows
# with a release that is not compatible with earlier ones; the migration of that release stores it in the database.
GENERATION: Final = 1

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
_FILE = re.compile(r"(\d{4})_\w+\.py")
# Any fixed number: all processes that migrate must use the same one.
_LOCK = 0x6261_7369_6E


def head_revision() -> str:
    """The newest revision, from the file names: the history is one line, and alembic is slow to import."""
    return max(found[1] for path in MIGRATIONS.iterdir() if (found := _FILE.fullmatch(path.name)))


def current_revision(database: Database) -> str | None:
    """The revision of the database; None if it was never migrated."""
    with database.read() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()


def at_head(database: Database) -> bool:
    """Whether the database has exactly the schema of this release."""
    return current_revision(database) == head_revision()


def is_behind(database: Database) -> bool:
    """Whether migrations are missing. A newer schema is fine: migrations are compatible with the release before."""
    return (current_revision(database) or "") < head_revision()


def oldest_generation(database: Database) -> int | None:
    """The oldest generation of releases that may run on a database with our schema or a newer one; None: all may."""
    with database.read() as connection:
        return connection.execute(select(generation.c.oldest)).scalar_one_or_none()


def too_old(database: Database) -> str | None:
    """Why this release must not run on a database with its schema or a newer one, and what to do; None: it may."""
    oldest = oldest_generation(database)
    if oldest is None or oldest <= GENERATION:
        return None
    return (
        f"this release (generation {GENERATION}) is too old for the database, which takes generation {oldest} and "
        "later; install a newer release here"
    )


def unfit_reason(database: Database) -> str | None:
    """Why this release cannot run on the database as it is, and what to do; None: it can."""
    if is_behind(database):
        return "the database does not have the schema of this release; run `basin migrate`"
    return too_old(database)


def upgrade_schema(url: str) -> None:
    """Run the missing migrations, all or none; several processes may call this at once.

    A schema that is newer than this release's stays as it is.

    Raises:
        Misconfigured: this release is too old for the schema.
    """
    database = open_database(url, pool_size=1)
    try:
        if is_behind(database):
            from alembic import command

            with migration_config(database) as config:
                command.upgrade(config, "head")
        elif problem := too_old(database):
            raise Misconfigured(problem)
    finally:
        database.close()


@contextmanager
def migration_config(database: Database) -> Iterator["Config"]:
    """The configuration for alembic's commands, in one transaction that excludes other migrations."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS / "environment").replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(MIGRATIONS).replace("%", "%%"))
    with database.write() as connection:
        if database.dialect == "postgresql":
            # SQLite's write transaction is the lock already. To alter a table may take longer than a query may run.
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(text("SET LOCAL lock_timeout = '60s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config.attributes["connection"] = connection
        yield config
