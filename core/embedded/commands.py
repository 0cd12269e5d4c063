"""`basin up` and `basin migrate`. The server's weight is imported inside, so that `basin --help` stays fast."""

from typing import Annotated, Any, NoReturn

import typer


def up(
    *,
    host: Annotated[str | None, typer.Option(help="A loopback address; else BASIN_HOST, else 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="0 takes a free one; else BASIN_PORT, else 8000.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=256, help="How many jobs train at the same time.")] = 1,
    worker: Annotated[bool, typer.Option("--worker/--no-worker", help="Start a worker too.")] = True,
) -> None:
    """Run the whole service here: broker, api, worker.

    Ctrl-C stops it within ten seconds; a running job goes on at the next start. Settings come from BASIN_… variables
    and from basin.toml in this folder.
    """
    from pydantic import ValidationError

    from core.embedded.up import up as run
    from core.errors import BasinError
    from core.settings import Settings

    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        run(Settings(**given), slots if worker else 0, typer.echo)
    except ValidationError as error:
        first = error.errors()[0]
        _give_up("up", f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BasinError as error:
        _give_up("up", error.message)
    except OSError as error:
        _give_up("up", f"{error.filename}: {error.strerror}")


def migrate() -> None:
    """Bring the database to this release's schema."""
    from pydantic import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    from core.db.migrate import upgrade
    from core.settings import Settings

    try:
        settings = Settings()
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        upgrade(settings.resolved_database_url())
    except ValidationError as error:
        first = error.errors()[0]
        _give_up("migrate", f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except SQLAlchemyError as error:
        _give_up("migrate", str(error).splitlines()[0])
    except OSError as error:
        _give_up("migrate", f"{error.filename}: {error.strerror}")
    typer.echo("the database has this release's schema")


def _give_up(command: str, message: str) -> NoReturn:
    typer.echo(f"basin {command}: {message}", err=True)
    raise typer.Exit(1)
