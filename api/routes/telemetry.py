"""Numbers for Prometheus."""

import logging

from fastapi import APIRouter, Request
from fastapi.responses import Response

from api.dependencies import Running, Service
from api.openapi import problem_responses
from api.telemetry import CONTENT_TYPE, Telemetry
from core.db.session import is_transient
from core.jobs.health.stats import ServiceStats, read_service_stats

router = APIRouter(tags=["health"])

_log = logging.getLogger("basin.api")


@router.get(
    "/metrics",
    operation_id="get_telemetry",
    response_class=Response,
    responses=problem_responses(403) | {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_telemetry(request: Request, service: Running) -> Response:
    """The state of the service in Prometheus' text format: the queue, leases, takeovers, this process, its requests.

    While the database is away, `basin_database_up` is 0 and the metrics from the database are missing.
    """
    own: Telemetry = request.app.state.telemetry
    return Response(own.render_metrics(_read_stats(service)), headers={"Content-Type": CONTENT_TYPE})


def _read_stats(service: Service) -> ServiceStats | None:
    try:
        return read_service_stats(service.db, service.settings.lease_seconds)
    except Exception as error:
        if not is_transient(error):
            raise
        _log.warning("no numbers from the database: %s", error)
        return None
