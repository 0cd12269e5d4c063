"""The command `basin doctor`. The server's weight is imported inside, so that `basin --help` stays fast."""

import os
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from basin.options import As, Output
from local.commands import restrict_umask

if TYPE_CHECKING:
    from core.settings import Settings
    from local.doctor.checks import CheckContext, CheckResult


def doctor(
    *,
    adopt_store: Annotated[
        bool, typer.Option("--adopt-store", help="Take a store that was moved or restored for that of this database.")
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Look at settings, database, broker, store, devices and disk from here, and say what to do.

    Nothing is changed, and nothing that is away is waited for. Exit status: 0 nothing failed, 1 something did.

    With --adopt-store nothing is looked at: the database's id is written into the store, if the store has an object
    that the database names, with its recorded digest, or the database names none.
    """
    import json
    from dataclasses import asdict, replace

    from core.redact import redact_secrets
    from local.doctor.checks import CheckStatus, worst_status

    restrict_umask()
    checks: list[CheckResult] = []
    for seen in _adopt_store() if adopt_store else _run_checks():
        check = replace(seen, found=redact_secrets(seen.found))
        checks.append(check)
        if output is Output.TABLE:
            typer.echo(format_check(check))
    verdict = worst_status(checks)
    if output is Output.JSON:
        typer.echo(json.dumps({"verdict": verdict, "checks": [asdict(check) for check in checks]}, indent=2))
    raise typer.Exit(1 if verdict is CheckStatus.FAIL else 0)


def format_check(check: "CheckResult") -> str:
    """`warning  broker      no message through …`, and below it what to do."""
    advice = f"\n{'':21}{check.do}" if check.do else ""
    return f"{check.verdict:<9}{check.name:<12}{check.found}{advice}"


def _adopt_store() -> "Iterator[CheckResult]":
    from core.redact import register_secrets
    from local.doctor.settings import read_settings
    from local.doctor.store import adopt_and_report

    settings, problems = read_settings()
    yield from problems
    if settings is not None:
        register_secrets(settings)
        yield adopt_and_report(settings)


def _run_checks() -> "Iterator[CheckResult]":
    from core.redact import register_secrets
    from local.doctor.checks import CheckContext, run_checks
    from local.doctor.devices import TORCH_SECONDS, device_checks
    from local.doctor.settings import read_settings, settings_checks

    settings, problems = read_settings()
    do = "see whether `python -c 'import torch'` comes back"
    devices = CheckContext("devices", partial(device_checks, settings), do, TORCH_SECONDS)
    yield from problems
    if settings is None:
        yield from run_checks([devices])
        return
    register_secrets(settings)
    yield from settings_checks(settings, os.environ)
    yield from run_checks([*_list_checks(settings), devices])


def _list_checks(settings: "Settings") -> "Iterator[CheckContext]":
    from local.doctor.broker import broker_checks
    from local.doctor.checks import CheckContext
    from local.doctor.database import database_checks
    from local.doctor.home import home_checks
    from local.doctor.permissions import permission_checks
    from local.doctor.plugins import SECONDS, plugin_checks
    from local.doctor.store import identity_checks, store_checks

    yield CheckContext("home", partial(home_checks, settings), "see what is wrong with the disk under BASIN_HOME")
    yield CheckContext(
        "permissions", partial(permission_checks, settings), "see what is wrong with the disk under BASIN_HOME"
    )
    yield CheckContext(
        "database", partial(database_checks, settings), "see whether it runs, and what BASIN_DATABASE_URL says"
    )
    yield CheckContext(
        "broker", partial(broker_checks, settings), "see whether it runs, and what BASIN_BROKER_URL says"
    )
    yield CheckContext("store", partial(store_checks, settings), "see whether it runs, and what BASIN_STORE_URL says")
    yield CheckContext(
        "store", partial(identity_checks, settings), "see what the database and the store say", between=True
    )
    yield CheckContext("plugins", plugin_checks, "see whether `pip list` comes back", SECONDS)
