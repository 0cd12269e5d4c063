"""The plug-ins that jobs need: which workers have them, and the message where none does."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, insert, not_, select

from core.db.session import database_now
from core.db.tables import job_plugin, job_state
from core.db.tables import worker as workers
from core.errors import Conflict, InvalidSpec
from core.recipe.plugins import Plugin, plugin_names

SEPARATOR: Final = "\n"


def store_plugins(connection: Connection, job_id: str, plugins: Iterable[Plugin]) -> None:
    """Only a worker that has them all takes the job. Without plug-ins nothing is written."""
    rows = [{"job_id": job_id, "plugin": each.name, "version": each.version} for each in plugins]
    if rows:
        connection.execute(insert(job_plugin), rows)


def lacks_no_plugin(have: Collection[str]) -> ColumnElement[bool]:
    """The condition on `job_state` that a worker with these plug-ins has all that the job needs."""
    row = job_plugin.c
    lacked = select(row.plugin).where(row.job_id == job_state.c.job_id)
    if have:
        lacked = lacked.where(row.plugin.not_in(have))
    return not_(lacked.correlate(job_state).exists())


def needed_plugins(job_id: ColumnElement[Any]) -> Any:
    """A column for a query of jobs: what `read_plugins` reads, null for a job that needs none."""
    row = job_plugin.c
    text = row.plugin + " " + row.version
    return select(func.aggregate_strings(text, SEPARATOR)).where(row.job_id == job_id).scalar_subquery()


def read_plugins(column: str | None) -> dict[str, str]:
    """Name -> version of the plug-ins that a job needs."""
    pairs = (line.partition(" ") for line in sorted((column or "").split(SEPARATOR)) if line)
    return {name: version for name, _, version in pairs}


def describe_missing(needed: Mapping[str, str], workers_have: Iterable[Collection[str]]) -> str | None:
    """What to say where no worker has all that a job needs; None: one has, or none is needed."""
    if not needed or any(needed.keys() <= set(have) for have in workers_have):
        return None
    named = " and ".join(f"{name} {version}" for name, version in needed.items())
    what, install_it = ("plug-ins", "install them") if len(needed) > 1 else ("plug-in", "install it")
    return f"No worker has the {what} {named}; {install_it} where workers run."


def find_missing_plugins(connection: Connection, needed: Sequence[Plugin], within: float) -> str | None:
    """What to say where workers have reported in the last `within` seconds and none has all that is needed."""
    if not needed:
        return None
    query = select(workers.c.plugins).where(database_now() - workers.c.seen_at <= within)
    have = [plugins or {} for plugins in connection.execute(query).scalars()]
    return describe_missing({each.name: each.version for each in needed}, have) if have else None


@contextmanager
def naming_missing_plugins(connection: Connection, job_id: str) -> Iterator[None]:
    """Inside the spec of a job is read to make another one; where a plug-in of it is not installed, that is said.

    Raises:
        Conflict: it names the plug-ins.
    """
    try:
        yield
    except InvalidSpec:
        _require_plugins(connection, job_id)
        raise


def _require_plugins(connection: Connection, job_id: str) -> None:
    rows = connection.execute(select(job_plugin.c.plugin, job_plugin.c.version).where(job_plugin.c.job_id == job_id))
    missing = [f"{row.plugin} {row.version}" for row in rows if row.plugin not in plugin_names()]
    if missing:
        message = f"The job needs the plug-in {', '.join(missing)}, which is not installed where this api runs."
        raise Conflict(message, extra={"missing_plugins": missing})
