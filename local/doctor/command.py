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
    from local.doctor.checks import Check, Look


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

    from core.redact import redact
    from local.doctor.checks import Verdict, worst

    restrict_umask()
    checks: list[Check] = []
    for seen in _adopted() if adopt_store else _checks():
        check = replace(seen, found=redact(seen.found))
        checks.append(check)
        if output is Output.TABLE:
            typer.echo(line(check))
    verdict = worst(checks)
    if output is Output.JSON:
        typer.echo(json.dumps({"verdict": verdict, "checks": [asdict(check) for check in checks]}, indent=2))
    raise typer.Exit(1 if verdict is Verdict.FAIL else 0)


def line(check: "Check") -> str:
    """`warning  broker      no message through …`, and below it what to do."""
    advice = f"\n{'':21}{check.do}" if check.do else ""
    return f"{check.verdict:<9}{check.name:<12}{check.found}{advice}"


def _adopted() -> "Iterator[Check]":
    from core.redact import hide
    from local.doctor.settings import read_settings
    from local.doctor.store import adopted

    settings, problems = read_settings()
    yield from problems
    if settings is not None:
        hide(settings)
        yield adopted(settings)


def _checks() -> "Iterator[Check]":
    from core.redact import hide
    from local.doctor.checks import Look, examined
    from local.doctor.devices import TORCH_SECONDS, device_checks
    from local.doctor.settings import read_settings, settings_checks

    settings, problems = read_settings()
    do = "see whether `python -c 'import torch'` comes back"
    devices = Look("devices", partial(device_checks, settings), do, TORCH_SECONDS)
    yield from problems
    if settings is None:
        yield from examined([devices])
        return
    hide(settings)
    yield from settings_checks(settings, os.environ)
    yield from examined([*_looks(settings), devices])


def _looks(settings: "Settings") -> "Iterator[Look]":
    from local.doctor.broker import broker_checks
    from local.doctor.checks import Look
    from local.doctor.database import database_checks
    from local.doctor.home import home_checks
    from local.doctor.permissions import permission_checks
    from local.doctor.plugins import SECONDS, plugin_checks
    from local.doctor.store import identity_checks, store_checks

    yield Look("home", partial(home_checks, settings), "see what is wrong with the disk under BASIN_HOME")
    yield Look("permissions", partial(permission_checks, settings), "see what is wrong with the disk under BASIN_HOME")
    yield Look("database", partial(database_checks, settings), "see whether it runs, and what BASIN_DATABASE_URL says")
    yield Look("broker", partial(broker_checks, settings), "see whether it runs, and what BASIN_BROKER_URL says")
    yield Look("store", partial(store_checks, settings), "see whether it runs, and what BASIN_STORE_URL says")
    yield Look("store", partial(identity_checks, settings), "see what the database and the store say", between=True)
    yield Look("plugins", plugin_checks, "see whether `pip list` comes back", SECONDS)
