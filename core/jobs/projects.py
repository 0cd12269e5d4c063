"""Projects: every job, analysis and key belongs to one, and only its keys see them. Their `owner` is who made them.

A project is its name. It is never renamed and never deleted.
"""

from dataclasses import dataclass
from typing import Final

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Row, Select, select

from core.db.session import Database, database_now
from core.db.tables import project as projects
from core.db.upsert import insert_if_absent
from core.errors import Conflict, FieldProblem, InvalidRequest
from core.recipe.text_fields import Name

DEFAULT: Final = "default"  # holds what was made without a key; its administrators create projects
_SWAPPED: Final = {"local": DEFAULT, DEFAULT: "local"}


@dataclass(frozen=True, slots=True)
class Project:
    """A project; `created_at` is in unix seconds, `created_by` an owner."""

    name: str
    created_at: float
    created_by: str


def project_of_owner(owner: str) -> str:
    """The project that an owner uses by default. Releases without projects showed each owner only their own jobs.

    `local`'s is `default`; any other has the owner's name. An owner named `default` gets `local`, so that no two owners
    share one. Migration 0011 does the same in SQL.
    """
    return _SWAPPED.get(owner, owner)


def owner_of_project(project: str) -> str:
    """The inverse of `project_of_owner`: the table of idempotency keys names projects by their owner.

    The previous release reads and writes that table by owner, and must find the same keys during an upgrade.
    """
    return _SWAPPED.get(project, project)


def create_project(db: Database, name: str, created_by: str) -> Project:
    """A new project.

    Raises:
        InvalidRequest: the name is empty, too long, or has characters that cannot be seen.
        Conflict: there is one of this name.
    """
    _require_name(name)
    values = {"name": name, "created_at": database_now(), "created_by": created_by}
    with db.write() as connection:
        if not insert_if_absent(connection, projects, **values):
            raise Conflict(f"There is a project with the name {name!r} already.")
        return _project(connection.execute(_select_projects().where(projects.c.name == name)).one())


def list_projects(db: Database, only: str | None = None) -> list[Project]:
    """All projects, or the one with this name, in the order of their names."""
    query = _select_projects().order_by(projects.c.name)
    if only is not None:
        query = query.where(projects.c.name == only)
    with db.read() as connection:
        return [_project(row) for row in connection.execute(query)]


def require_project(connection: Connection, name: str) -> None:
    """Raise InvalidRequest unless there is a project with this name."""
    if connection.execute(select(projects.c.name).where(projects.c.name == name)).first() is None:
        message = f"There is no project {name!r}; `basin project list` and GET /v1/projects name them."
        raise InvalidRequest(message, errors=(FieldProblem("/project", "there is no such project"),))


def ensure_project(connection: Connection, owner: str) -> str:
    """The default project of an owner, created if it does not exist yet."""
    name = project_of_owner(owner)
    insert_if_absent(connection, projects, name=name, created_at=database_now(), created_by=owner)
    return name


def _require_name(name: str) -> None:
    try:
        TypeAdapter[str](Name).validate_python(name)
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InvalidRequest(
            f"This is no name for a project: {reason}.", errors=(FieldProblem("/name", reason),)
        ) from None


def _project(row: Row[tuple[str, float, str]]) -> Project:
    return Project(row.name, row.created_at, row.created_by)


def _select_projects() -> Select[tuple[str, float, str]]:
    return select(projects.c.name, projects.c.created_at, projects.c.created_by)
