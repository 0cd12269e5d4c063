"""PostgreSQL databases that are emptied and used again: making one from a template costs ten times as much.

A database is given back only where nothing but rows is left of the test that had it: nobody is connected, its schema
and its settings are those of the template, and few rows were written (what many deleted rows leave behind is seen in
the plans of the next test). Any other one is dropped.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from psycopg import sql

MOST_ROWS: Final = 2_000
TABLES: Final = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
SEQUENCES: Final = "SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' AND last_value IS NOT NULL"
SCHEMA: Final = """
    SELECT 'c', table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns
        WHERE table_schema = 'public'
    UNION ALL SELECT 'i', tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL SELECT 't', tgrelid::regclass::text, tgname, tgenabled::text, '', '' FROM pg_trigger
        WHERE NOT tgisinternal
    UNION ALL SELECT 'k', conrelid::regclass::text, conname, pg_get_constraintdef(oid), '', '' FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT 'f', proname, prosrc, '', '', '' FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT 's', unnest(setconfig), '', '', '', '' FROM pg_db_role_setting
        WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY 1, 2, 3, 4, 5, 6
"""
OTHERS: Final = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Blank:
    """What a database holds that no test has used: its schema, and the rows that migrations write."""

    schema: tuple[Row, ...]
    rows: dict[str, tuple[Row, ...]]

    @classmethod
    def of(cls, url: str) -> "Blank":
        with psycopg.connect(url) as connection:
            schema = tuple(connection.execute(SCHEMA).fetchall())
            names = [name for (name,) in connection.execute(TABLES)]
            rows = {name: tuple(connection.execute(_all_rows(name)).fetchall()) for name in names}
        return cls(schema, rows)

    def restore(self, url: str) -> bool:
        """Take every row out that a test has written. False: the database is not to be used again."""
        with psycopg.connect(url) as connection:
            if connection.execute(OTHERS).fetchone() != (0,) or tuple(connection.execute(SCHEMA)) != self.schema:
                return False
            connection.execute("SET LOCAL session_replication_role = replica")  # no triggers, no foreign keys
            gone = sum(connection.execute(_no_rows(name)).rowcount for name in self.rows)
            for name, rows in self.rows.items():
                for row in rows:
                    connection.execute(_new_row(name, len(row)), row)
            for (sequence,) in connection.execute(SEQUENCES).fetchall():
                connection.execute(sql.SQL("ALTER SEQUENCE {} RESTART").format(sql.Identifier(sequence)))
        return gone <= MOST_ROWS


class UsedDatabases:
    """Names of databases of this process that are blank again, the one that was given back first in front."""

    def __init__(self) -> None:
        self._names: deque[str] = deque()

    def put(self, name: str) -> None:
        self._names.append(name)

    def take(self) -> str | None:
        return self._names.popleft() if self._names else None

    def take_all(self) -> list[str]:
        found = list(self._names)
        self._names.clear()
        return found


def _all_rows(table: str) -> sql.Composed:
    return sql.SQL("SELECT * FROM {}").format(sql.Identifier(table))


def _no_rows(table: str) -> sql.Composed:
    return sql.SQL("DELETE FROM {}").format(sql.Identifier(table))


def _new_row(table: str, columns: int) -> sql.Composed:
    places = sql.SQL(", ").join([sql.Placeholder()] * columns)
    return sql.SQL("INSERT INTO {} VALUES ({})").format(sql.Identifier(table), places)
