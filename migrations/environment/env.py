"""Alembic runs this for every command; the connection comes from core.db.migrate, or from the settings on the shell."""

from alembic import context
from sqlalchemy import Connection

from core.db.session import open_database
from core.db.tables import metadata
from core.settings import Settings


def run(connection: Connection) -> None:
    """Run the migrations in the open transaction. SQLite alters a table by copying it: batch mode."""
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    database = open_database(Settings().resolved_database_url(), pool_size=1)
    with database.write() as own:
        run(own)
    database.close()
