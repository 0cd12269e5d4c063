"""The API as an ASGI application."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial
from importlib import metadata

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.auth import reject_cross_site
from api.dependencies import Service
from api.errors import on_error
from api.key_cache import Keyring
from api.live_poller import LivePoller
from api.middleware import EdgeMiddleware
from api.probes import WriteProbe
from api.routes import all_routers
from api.sse import encode_page
from api.telemetry import Telemetry
from api.uploads import UploadSlots, body_limit
from core.db.session import open_database
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.store_identity import open_identified_store
from core.queue import Hints
from core.recipe.parse import build_schemas
from core.settings import Settings

SILENCE_SECONDS = 20.0  # for our own threads; PostgreSQL itself ends every statement after 15


def create_app(settings: Settings) -> FastAPI:
    """The application for these settings. Nothing is opened before it starts."""
    app = FastAPI(
        title="Basin",
        version=metadata.version("basin-server"),
        lifespan=_lifespan,
        openapi_url=None,  # api/routes/docs.py
        redirect_slashes=False,  # a redirect would be built from the Host header
        separate_input_output_schemas=False,
    )
    app.state.settings = settings
    for error in (HTTPException, RequestValidationError):  # all others reach api/middleware.py by themselves
        app.add_exception_handler(error, on_error)
    app.state.telemetry = Telemetry(app)
    app.add_middleware(
        EdgeMiddleware,
        guard=partial(reject_cross_site, state=app.state),
        observe=app.state.telemetry.observe_request,
        body_limit=partial(body_limit, most_upload=settings.upload_bytes),
        database_seconds=settings.database_seconds,
    )
    for router in all_routers():
        app.include_router(router)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    with contextlib.ExitStack() as parts:
        service = app.state.service = await run_in_threadpool(_open_service, app.state.settings, parts)
        poller = asyncio.create_task(service.live.poll_forever())
        yield
        service.live.close()
        poller.cancel()


def _open_service(settings: Settings, parts: contextlib.ExitStack) -> Service:
    """Everything that lives as long as the process; `parts` closes it in the opposite order."""
    build_schemas()
    db = open_database(settings.resolved_database_url(), longest_wait=SILENCE_SECONDS)
    parts.callback(db.close)
    store = open_identified_store(settings, db)
    hints = Hints(settings)
    hints.start()  # Celery is imported behind the first requests, not in front of the first job
    parts.callback(hints.close)
    reconciler = Reconciler(db, store, hints, settings)
    reconciler.start()
    parts.callback(reconciler.stop)
    live = LivePoller(db, encode_page, settings.max_streams)
    return Service(
        settings,
        db,
        store,
        hints,
        reconciler,
        Keyring(db, settings),
        live,
        WriteProbe(db),
        UploadSlots(settings.uploads_at_once),
    )
