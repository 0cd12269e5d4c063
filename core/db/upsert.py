"""INSERT … ON CONFLICT, which SQLAlchemy has as a separate statement for each database."""

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_if_absent(connection: Connection, table: Table, **values: Any) -> bool:
    """Insert one row unless its primary key is taken; return whether it was inserted.

    On PostgreSQL this waits for a concurrent insert of the same key to commit or roll back.
    """
    statement = _dialect_insert(connection, table).values(**values).on_conflict_do_nothing()
    # The row count cannot be used: psycopg does not keep it for inserts.
    return connection.execute(statement.returning(*table.primary_key)).first() is not None


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, all with the same columns; where the primary key is taken, the other columns are replaced."""
    if not rows:
        return
    statement = _dialect_insert(connection, table)
    keys = {column.name for column in table.primary_key}
    fresh = {name: statement.excluded[name] for name in _other_columns(rows[0], keys)}
    connection.execute(statement.on_conflict_do_update(index_elements=sorted(keys), set_=fresh), rows)


def insert_or_update(connection: Connection, table: Table, values: dict[str, Any], fresh: dict[str, Any]) -> None:
    """Insert one row; where its primary key is taken, set the columns of `fresh`. Values may be SQL expressions."""
    keys = [column.name for column in table.primary_key]
    statement = _dialect_insert(connection, table).values(**values)
    connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=fresh))


def _other_columns(names: Iterable[str], keys: set[str]) -> list[str]:
    return [name for name in names if name not in keys]


def _dialect_insert(connection: Connection, table: Table) -> Any:
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
