"""`basin project create|list`: uses the database directly, as `basin key` does."""

from typing import Annotated

import typer

from local.commands import database_of, explain_errors, restrict_umask
from local.keys import printable, utc_time

project = typer.Typer(
    name="project", help="Projects: create, list. Needs the database, not the api.", no_args_is_help=True
)

project.callback()(restrict_umask)


@project.command()
def create(
    *,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The name by which keys name their project; it never changes.")
    ],
    owner: Annotated[str, typer.Option(help="The owner who creates it.")] = "local",
) -> None:
    """Create a project. `basin key create --project NAME` creates keys that see only this project."""
    from core.jobs.projects import create_project

    with explain_errors("project create"), database_of() as db:
        made = create_project(db, name, owner)
    typer.echo(printable(made.name))


@project.command("list")
def list_all() -> None:
    """List all projects, with when and by whom each was created."""
    from core.jobs.projects import list_projects

    with explain_errors("project list"), database_of() as db:
        found = list_projects(db)
    for one in found:
        typer.echo(f"{printable(one.name)}  created {utc_time(one.created_at)} by {printable(one.created_by)}")
