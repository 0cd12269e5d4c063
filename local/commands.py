"""`basin up` and `basin migrate`, and helpers of the server's commands.

The modules of the server are imported inside the functions, so that `basin --help` stays fast.
"""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from core.db.session import Database
    from core.settings import Settings


def up(
    *,
    host: Annotated[
        str | None,
        typer.Option(help="An address other than loopback needs a key first. Default: BASIN_HOST, else 127.0.0.1."),
    ] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free port. Default: BASIN_PORT, else 8000.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="How many jobs train at the same time.")] = 1,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Start a worker too.")] = True,
) -> None:
    """Run the whole service here: broker, api, worker.

    Ctrl-C stops it within ten seconds; a running job continues at the next start. Settings come from BASIN_… variables
    and from basin.toml in this folder.
    """
    from core.process import forbid_reading

    forbid_reading()
    from core.settings import Settings
    from local.up import run_service as run

    restrict_umask()
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    with explain_errors("up"):
        run(Settings(**given), slots if worker else 0, typer.echo)


def migrate() -> None:
    """Bring the database to this release's schema."""
    from sqlalchemy.exc import SQLAlchemyError

    from core.db.migrate import upgrade_schema
    from core.errors import Misconfigured
    from core.settings import Settings

    restrict_umask()
    with explain_errors("migrate"):
        settings = Settings()
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            upgrade_schema(settings.resolved_database_url())
        except SQLAlchemyError as error:
            raise Misconfigured(str(error).splitlines()[0]) from error
    typer.echo("the database has this release's schema")


def restrict_umask() -> None:
    """Make all files of this command and its children readable by their owner alone: database, weights, logs."""
    os.umask(0o077)


@contextmanager
def database_of(settings: "Settings | None" = None) -> Iterator["Database"]:
    """The database of these settings, by default those of the environment, for commands that use it directly.

    Raises:
        Misconfigured: it has the schema of an earlier release, or this release is too old for it.
        Unavailable: it cannot be reached. The driver's message is not shown: it may name hosts and users.
    """
    from core.db.migrate import unfit_reason
    from core.db.session import is_transient, open_database
    from core.errors import BasinError, Misconfigured, Unavailable
    from core.settings import Settings

    with closing(open_database((settings or Settings()).resolved_database_url(), pool_size=1)) as db:
        try:
            problem = unfit_reason(db)
            if problem is None:
                yield db
        except Exception as error:
            if isinstance(error, BasinError) or not is_transient(error):
                raise
            raise Unavailable("the database is away") from error
    if problem:
        raise Misconfigured(problem)


@contextmanager
def explain_errors(command: str, status: int = 1) -> Iterator[None]:
    """Print errors that an operator can fix as one line instead of a traceback, and exit with this status."""
    from pydantic import ValidationError

    from core.errors import BasinError
    from core.redact import redact_secrets

    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        message = f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}"
    except BasinError as error:
        message = error.message
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
    else:
        return
    typer.echo(redact_secrets(f"basin {command}: {message}"), err=True)
    raise typer.Exit(status)
