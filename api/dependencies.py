"""Dependencies of the routes: the parts of the running service, the body, well-formed ids."""

import asyncio
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from starlette.exceptions import HTTPException

from api.errors import HttpError
from api.json_documents import MalformedError
from api.key_cache import Keyring
from api.live_poller import LivePoller
from api.middleware import MAX_BODY
from api.probes import WriteProbe
from api.uploads import UploadSlots
from core.db.session import Database
from core.errors import NotFound, TooLarge, Unsupported
from core.ids import is_id
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.kinds import ANALYSIS, TRAIN
from core.queue import Hints
from core.settings import Settings
from core.store.base import Store


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that live as long as the process."""

    settings: Settings
    db: Database
    store: Store
    hints: Hints
    reconciler: Reconciler
    keyring: Keyring
    live: LivePoller
    writes: WriteProbe
    uploads: UploadSlots


async def _running_service(request: Request) -> Service:
    return cast("Service", request.app.state.service)


Running = Annotated[Service, Depends(_running_service)]


def _body_seconds(request: Request) -> float:
    service: Service = request.app.state.service
    return service.settings.body_seconds


async def json_only(request: Request) -> None:
    """Refuse bodies that are not JSON. A form of another site can send other types without a CORS preflight."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Unsupported("The body must be JSON, sent with Content-Type: application/json.")


async def _read_body(request: Request) -> bytes:
    body = await _maybe_body(request)
    if not body:
        raise MalformedError("The body is empty; it must be a JSON object.")
    return body


async def read_json_body(request: Request) -> bytes:
    """A JSON body of a route whose router sets no limit, because it takes files too."""
    await json_only(request)
    body = bytearray()
    try:
        async with asyncio.timeout(_body_seconds(request)):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise TooLarge(f"The body is larger than {MAX_BODY} bytes.")
    except TimeoutError as error:
        raise HttpError(408, "timeout", "The body did not arrive in time.", {"Connection": "close"}) from error
    if not body:
        raise MalformedError("The body is empty; it must be a JSON object.")
    return bytes(body)


async def _maybe_body(request: Request) -> bytes:
    try:
        async with asyncio.timeout(_body_seconds(request)):
            body = await request.body()
    except HTTPException as error:  # the size limit for a body without Content-Length
        raise TooLarge if error.status_code == 413 else error from None
    except TimeoutError as error:
        raise HttpError(408, "timeout", "The body did not arrive in time.", {"Connection": "close"}) from error
    return body


Body = Annotated[bytes, Depends(_read_body)]
MaybeBody = Annotated[bytes, Depends(_maybe_body)]


def _require_id(prefix: str, noun: str, text: str) -> str:
    """The id, or NotFound when it is malformed. The database is not queried: PostgreSQL refuses NUL in a text."""
    if not is_id(text, prefix):
        raise NotFound(f"There is no {noun} with this id.")
    return text


async def _job_id(job_id: Annotated[str, Path(description="`job_` and 26 characters")]) -> str:
    return _require_id(TRAIN.id_prefix, TRAIN.noun, job_id)


async def _analysis_id(analysis_id: Annotated[str, Path(description="`an_` and 26 characters")]) -> str:
    return _require_id(ANALYSIS.id_prefix, ANALYSIS.noun, analysis_id)


async def _checkpoint_id(checkpoint_id: Annotated[str, Path(description="`ckpt_` and 26 characters")]) -> str:
    return _require_id("ckpt", "checkpoint", checkpoint_id)


async def _dataset_id(dataset_id: Annotated[str, Path(description="`ds_` and 26 characters")]) -> str:
    return _require_id("ds", "dataset", dataset_id)


async def _key_id(key_id: Annotated[str, Path(description="`key_` and 26 characters")]) -> str:
    return _require_id("key", "key", key_id)


JobId = Annotated[str, Depends(_job_id)]
AnalysisId = Annotated[str, Depends(_analysis_id)]
CheckpointId = Annotated[str, Depends(_checkpoint_id)]
DatasetId = Annotated[str, Depends(_dataset_id)]
KeyId = Annotated[str, Depends(_key_id)]
