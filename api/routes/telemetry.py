"""Numbers for Prometheus."""

import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.dependencies import Running, Service
from api.openapi import problems
from api.telemetry import CONTENT_TYPE, Telemetry
from core.db.session import is_transient
from core.jobs.health.stats import Vitals, read_vitals

router = APIRouter(tags=["health"])

_log = logging.getLogger("basin.api")


@router.get(
    "/metrics",
    operation_id="get_telemetry",
    response_class=Response,
    responses=problems(403) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def telemetry(request: Request, service: Running) -> Response:
    """The state of the service in Prometheus' text format: the queue, leases, takeovers, this process, its requests.

    It answers while the database is away too; then `basin_database_up` is 0 and the numbers from there are missing.
    """
    own: Telemetry = request.app.state.telemetry
    return Response(own.render(_vitals(service)), headers={"Content-Type": CONTENT_TYPE})


def _vitals(service: Service) -> Vitals | None:
    try:
        return read_vitals(service.db, service.settings.lease_seconds)
    except Exception as error:
        if not is_transient(error):
            raise
        _log.warning("no numbers from the database: %s", error)
        return None
