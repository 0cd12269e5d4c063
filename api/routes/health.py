"""Alive, and ready. The only routes that anybody may call."""

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

router = APIRouter(tags=["health"])

LOW_DISK = 64 * 1024 * 1024  # bytes

_log = logging.getLogger("basin.api")


class Health(BaseModel):
    """The process answers."""

    status: Literal["alive"]


class Check(BaseModel):
    """One part. One that is not `required` may be away: jobs run without it, a little later."""

    ok: bool
    required: bool
    detail: str | None


class Readiness(BaseModel):
    """`degraded`: everything that is required works, something else does not; the list names what."""

    status: Literal["ready", "degraded", "unavailable"]
    degraded: list[str]
    checks: dict[str, Check]


@router.get("/healthz", operation_id="health", response_model=Health)
async def get_health() -> JsonResponse:
    """Whether the process is alive. It asks nobody else."""
    return JsonResponse({"status": "alive"})


@router.get(
    "/readyz",
    operation_id="readiness",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Something that is required does not work"}},
)
def get_readiness(service: Running) -> JsonResponse:
    """Whether jobs can be taken: there must be a database that has the schema and takes writes.

    It is asked for a write once in three seconds, however many want to know.
    """
    database = _run_probe(_probe_database, service)
    # The others would each wait as long to find out the same.
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
    if any(check["required"] and not check["ok"] for check in checks.values()):
        return JsonResponse({"status": "unavailable", "degraded": degraded, "checks": checks}, STATUS["unavailable"])
    return JsonResponse({"status": "degraded" if degraded else "ready", "degraded": degraded, "checks": checks})


def _run_probe(probe: Callable[[Service], str | None], service: Service, *, required: bool = True) -> dict[str, object]:
    """`probe` says what is wrong, or None. What it raises may name hosts and files: that goes to the log alone."""
    try:
        detail = probe(service)
    except Exception as error:  # noqa: BLE001 - whatever happens there, this route answers
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
    except WrongStore as error:  # its message names nothing, and nobody would guess this
        return error.message
    return None


def _probe_broker(service: Service) -> str | None:
    return None if broker_answers(service.settings.resolved_broker_url()) else "no answer; jobs are found by polling"


def _probe_reconciler(service: Service) -> str | None:
    with service.db.read() as connection:
        lag = reconciler_lag(connection)
    return reconciler_problem(lag, service.settings.gap_seconds)


def _probe_disk(service: Service) -> str | None:
    """Of the home: the database or the objects may lie there, and do by default."""
    home = service.settings.home
    free = shutil.disk_usage(home).free if home.exists() else LOW_DISK
    return None if free >= LOW_DISK else f"{free // 1024**2} MiB are left where BASIN_HOME lies"
