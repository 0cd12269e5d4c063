"""`basin key create|list|revoke`: uses the database directly, so that an operator with its password needs no key."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from local.commands import database_of, explain_errors, restrict_umask

if TYPE_CHECKING:
    from core.jobs.keys import Key

key = typer.Typer(
    name="key", help="API keys: create, list, revoke. Needs the database, not the api.", no_args_is_help=True
)

key.callback()(restrict_umask)

DAY = 86400.0
Count = Annotated[int | None, typer.Option(min=1)]


@key.command()
def create(  # noqa: PLR0913 - the fields of a key
    *,
    name: Annotated[str | None, typer.Option(help="A label that `basin key list` shows.")] = None,
    owner: Annotated[
        str, typer.Option(help="The owner of jobs that are submitted with it. Without keys the owner is local.")
    ] = "local",
    project: Annotated[
        str | None,
        typer.Option(help="The project whose jobs it sees. Default: `default` for local, else the owner's name."),
    ] = None,
    scope: Annotated[list[str] | None, typer.Option(help="read, write, admin. Default: read and write.")] = None,
    days: Annotated[float | None, typer.Option(min=0.0, help="Days until it expires. Default: no expiry.")] = None,
    queued_jobs: Count = None,
    running_jobs: Count = None,
    stored_bytes: Count = None,
    datasets: Count = None,
    dataset_bytes: Count = None,
    requests_per_minute: Count = None,
) -> None:
    """Create a key and print it on standard output. It is not stored and cannot be shown again.

    Once there is a key, the service refuses requests without one.
    """
    from core.jobs.keys import create_key
    from core.settings import Limits

    limits = Limits(
        queued_jobs=queued_jobs,
        running_jobs=running_jobs,
        stored_bytes=stored_bytes,
        datasets=datasets,
        dataset_bytes=dataset_bytes,
        requests_per_minute=requests_per_minute,
    )
    with explain_errors("key create"), database_of() as db:
        lasts = None if days is None else days * DAY
        made, text = create_key(
            db, owner=owner, name=name, scopes=scope or ("read", "write"), limits=limits, lasts=lasts, project=project
        )
    whose = f"{made.id} of {made.owner} in project {made.project}"
    typer.echo(f"{whose}, {_format_expiry(made)}; it is shown only this once:", err=True)
    typer.echo(text)


@key.command("list")
def list_all(
    *,
    owner: Annotated[str | None, typer.Option(help="Only the keys of this owner.")] = None,
    project: Annotated[str | None, typer.Option(help="Only the keys of this project.")] = None,
) -> None:
    """List all keys, also revoked ones, without their secrets."""
    from core.jobs.keys import list_keys

    with explain_errors("key list"), database_of() as db:
        keys = list_keys(db, owner, project)
    for one in keys:
        used = f"used {utc_time(one.last_used_at)}" if one.last_used_at else "never used"
        scopes = ",".join(one.scopes)
        line = (one.id, one.status, one.owner, one.project, scopes, _format_expiry(one), used, one.name or "")
        typer.echo("  ".join(printable(word) for word in line).rstrip())
    if not keys:
        typer.echo("No keys yet. Create one:  basin key create", err=True)


@key.command()
def revoke(*, keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="As in key_01…")]) -> None:
    """Revoke keys. The service refuses them after five seconds at most."""
    from core.jobs.keys import revoke_key

    with explain_errors("key revoke"), database_of() as db:
        for key_id in keys:
            typer.echo(f"{revoke_key(db, None, key_id).id}  revoked")


def _format_expiry(one: "Key") -> str:
    return "without expiry" if one.expires_at is None else f"until {utc_time(one.expires_at)}"


def utc_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def printable(text: str) -> str:
    """The text without control characters, which could control a terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)
