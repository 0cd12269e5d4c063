"""What a database is asked while something is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from core.db.session import Database


@contextmanager
def told(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """The statements with their parameters, as the driver gets them."""
    found: list[tuple[str, Any]] = []

    def listen(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        found.append((statement, parameters))

    reader, writer = database._reader, database._writer
    # On PostgreSQL the reader is a view of the writer, whose listeners it has.
    engines = [writer] if reader.pool is writer.pool else [reader, writer]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", listen)
    try:
        yield found
    finally:
        for engine in engines:
            event.remove(engine, "before_cursor_execute", listen)
