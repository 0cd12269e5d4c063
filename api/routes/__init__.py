"""All routers of the API. A new resource is a file and a line here."""

from fastapi import APIRouter, Depends

from api.auth import authorize_request
from api.dependencies import json_only
from api.middleware import MAX_BODY
from api.routes import (
    analyses,
    branches,
    catalog,
    checkpoints,
    compare,
    datasets,
    docs,
    events,
    health,
    job_actions,
    job_changes,
    jobs,
    keys,
    metrics,
    plots,
    projects,
    schedules,
    splits,
    telemetry,
    upload_links,
    uploads,
    workers,
)

NOUNS = (
    jobs.router,
    job_actions.router,
    branches.router,
    job_changes.router,
    events.router,
    metrics.router,
    compare.router,
    plots.router,
    splits.router,
    checkpoints.router,
    analyses.router,
    datasets.router,
    upload_links.router,
    catalog.router,
    schedules.router,
    keys.router,
    projects.router,
    workers.router,
)

OPEN = (health.router, docs.router)  # the only routers without authentication


def all_routers() -> tuple[APIRouter, ...]:
    """The routers as the app includes them; all but the open ones authorize the request first."""
    closed = APIRouter(dependencies=[Depends(authorize_request), Depends(json_only)], max_body_size=MAX_BODY)
    for noun in NOUNS:
        closed.include_router(noun, prefix="/v1")
    closed.include_router(docs.home)
    closed.include_router(telemetry.router)
    files = APIRouter(dependencies=[Depends(authorize_request)])  # its routes check types and sizes themselves
    files.include_router(uploads.router, prefix="/v1")
    return (closed, files, *OPEN)
