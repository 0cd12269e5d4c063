"""The command `basin doctor`. It imports the server's modules inside functions, so that `basin --help` stays fast."""

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
        bool,
        typer.Option("--adopt-store", help="Accept a store that was moved or restored as the one of this database."),
    ] = False,
    output: As = Output.TABLE,
) -> None:
    """Check settings, database, broker, store, devices and disk from this machine, and name the remedies.

    Nothing is changed, and every check has a time limit. Exit status: 0 if no check failed, else 1.

    With --adopt-store nothing is checked: the database's id is written into the store, if the store has an object that
    the database names, with its recorded digest, or the database names none.
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
    """`warning  broker      a message through … failed`, and the remedy on the next line."""
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
    do = "check whether `python -c 'import torch'` ends"
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
    from local.doctor.isolation import isolation_checks
    from local.doctor.permissions import permission_checks
    from local.doctor.plugins import SECONDS, plugin_checks
    from local.doctor.store import identity_checks, store_checks

    yield CheckContext("home", partial(home_checks, settings), "check the disk under BASIN_HOME")
    yield CheckContext("permissions", partial(permission_checks, settings), "check the disk under BASIN_HOME")
    yield CheckContext(
        "database", partial(database_checks, settings), "check that it runs, and that BASIN_DATABASE_URL is correct"
    )
    yield CheckContext(
        "broker", partial(broker_checks, settings), "check that it runs, and that BASIN_BROKER_URL is correct"
    )
    yield CheckContext(
        "store", partial(store_checks, settings), "check that it runs, and that BASIN_STORE_URL is correct"
    )
    yield CheckContext(
        "store", partial(identity_checks, settings), "see the checks of the database and of the store", between=True
    )
    isolation = partial(isolation_checks, settings, dict(os.environ))
    yield CheckContext("parsers", isolation, "see whether `python -m worker.prepare.confine` ends")
    yield CheckContext("plugins", plugin_checks, "see whether `pip list` comes back", SECONDS)
