"""`basin api`. The server's modules are imported inside the command, so that `basin --help` stays fast."""

from typing import Annotated, Any, NoReturn

import typer


def api(
    host: Annotated[
        str | None, typer.Option(help="Default: BASIN_HOST, else 127.0.0.1. Other than loopback needs a key first.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="0: any free port. Default: BASIN_PORT, else 8000.")] = None,
) -> None:
    """Serve the HTTP API until SIGTERM or SIGINT."""
    from core.process import forbid_reading

    forbid_reading()
    from pydantic import ValidationError

    from api.server import run_server
    from core.errors import BasinError
    from core.settings import Settings
    from local.commands import restrict_umask

    restrict_umask()
    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    try:
        run_server(Settings(**given))
    except ValidationError as error:
        first = error.errors()[0]
        _exit_with_error(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}")
    except BasinError as error:
        _exit_with_error(error.message)


def _exit_with_error(message: str) -> NoReturn:
    from core.redact import redact_secrets

    typer.echo(redact_secrets(f"basin api: {message}"), err=True)
    raise typer.Exit(2)
