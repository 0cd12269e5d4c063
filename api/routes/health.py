"""Liveness and readiness. Neither needs a key."""

import logging
import shutil
from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.dependencies import Running, Service
from api.errors import STATUS
from api.json_documents import JsonResponse
from api.probes import broker_answers
from core.db.migrate import unfit_reason
from core.jobs.health.readiness import reconciler_lag, reconciler_problem
from core.jobs.store_identity import WrongStore
from core.recipe.plugins import installed_plugins

router = APIRouter(tags=["health"])

LOW_DISK = 64 * 1024 * 1024  # bytes

_log = logging.getLogger("basin.api")


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Check(BaseModel):
    """One check. Without a part that is not `required`, jobs still run, with a delay."""

    ok: bool
    required: bool
    detail: str | None


class JoinedPlugin(BaseModel):
    """A plug-in whose components this api offers."""

    name: str
    version: str


class RefusedEntryPoints(JoinedPlugin):
    """A plug-in that could not be loaded, with its entry points as group:name. `basin doctor` says why."""

    entry_points: list[str]


class PluginReport(BaseModel):
    """The plug-ins that are installed where this api runs. Workers may have others."""

    joined: list[JoinedPlugin]
    refused: list[RefusedEntryPoints]


class Readiness(BaseModel):
    """`degraded`: all required checks pass and others fail; the list `degraded` names those."""

    status: Literal["ready", "degraded", "unavailable"]
    degraded: list[str]
    checks: dict[str, Check]
    plugins: PluginReport


@router.get("/healthz", operation_id="health", response_model=Health)
async def get_health() -> JsonResponse:
    """Whether the process is alive. No other part is checked."""
    return JsonResponse({"status": "alive"})


@router.get(
    "/readyz",
    operation_id="readiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "A required check fails"}},
)
def get_readiness(service: Running) -> JsonResponse:
    """Whether jobs are accepted: the database must have the schema and take writes.

    The write is tested at most once in three seconds, for all requests together.
    """
    database = _run_probe(_probe_database, service)
    # Each of the other checks that use the database would wait as long for the same result.
    reachable = database["ok"]
    checks = {
        "database": database,
        "writes": _run_probe(_probe_writes if reachable else _probe_unknown, service),
        "migrations": _run_probe(_probe_migrations if reachable else _probe_unknown, service),
        "store": _run_probe(_probe_store, service, required=False),
        "broker": _run_probe(_probe_broker, service, required=False),
        "reconciler": _run_probe(_probe_reconciler if reachable else _probe_unknown, service, required=False),
        "disk": _run_probe(_probe_disk, service, required=False),
    }
    degraded = [name for name, check in checks.items() if not check["ok"] and not check["required"]]
    found = {"degraded": degraded, "checks": checks, "plugins": describe_plugins()}
    if any(check["required"] and not check["ok"] for check in checks.values()):
        return JsonResponse({"status": "unavailable", **found}, STATUS["unavailable"])
    return JsonResponse({"status": "degraded" if degraded else "ready", **found})


def describe_plugins() -> dict[str, list[dict[str, object]]]:
    """Without the reasons of refusals, which may name files: this route needs no key."""
    plugins = installed_plugins()
    return {
        "joined": [{"name": each.name, "version": each.version} for each in plugins.joined],
        "refused": [
            {"name": each.name, "version": each.version, "entry_points": list(each.entry_points)}
            for each in plugins.refused
        ],
    }


def _run_probe(probe: Callable[[Service], str | None], service: Service, *, required: bool = True) -> dict[str, object]:
    """Run a probe, which returns the problem or None. An exception may name hosts and files: only the log has it."""
    try:
        detail = probe(service)
    except Exception as error:  # noqa: BLE001 - this route answers after any error of a probe
        _log.warning("not ready: %s", error)
        detail = "away"
    return {"ok": detail is None, "required": required, "detail": detail}


def _probe_unknown(_service: Service) -> str:
    return "unknown while the database is away"


def _probe_database(service: Service) -> None:
    with service.db.read() as connection:
        connection.exec_driver_sql("SELECT 1")


def _probe_writes(service: Service) -> str | None:
    return service.writes.write_problem()


def _probe_migrations(service: Service) -> str | None:
    return unfit_reason(service.db)


def _probe_store(service: Service) -> str | None:
    try:
        service.store.ping()
    except WrongStore as error:  # its message holds no secret and gives the remedy
        return error.message
    return None


def _probe_broker(service: Service) -> str | None:
    return None if broker_answers(service.settings.resolved_broker_url()) else "no answer; jobs are found by polling"


def _probe_reconciler(service: Service) -> str | None:
    with service.db.read() as connection:
        lag = reconciler_lag(connection)
    return reconciler_problem(lag, service.settings.gap_seconds)


def _probe_disk(service: Service) -> str | None:
    """Free space of BASIN_HOME, which holds the database and the objects by default."""
    home = service.settings.home
    free = shutil.disk_usage(home).free if home.exists() else LOW_DISK
    return None if free >= LOW_DISK else f"{free // 1024**2} MiB are free on the disk of BASIN_HOME"
