"""Checkpoints and their weights."""

import base64
import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from api.auth import Caller
from api.dependencies import CheckpointId, JobId, Running, Service
from api.json_documents import JsonResponse, format_timestamp
from api.long_poll import IfMatch, format_etag
from api.openapi import problem_responses
from api.paging import Page, page_envelope
from api.ranges import ByteRange, matches_etag, parse_range
from core.errors import NotFound
from core.jobs.checkpoints.pins import add_pin, pin_version, remove_pin
from core.jobs.checkpoints.records import CheckpointRow, get_checkpoint_row, list_checkpoint_rows
from core.store.base import Store, StoreMissing

router = APIRouter(tags=["checkpoints"])


class Checkpoint(BaseModel):
    """Weights of a job after `step` optimizer steps. `sha256` and `bytes` are those of the content.

    `kind` is last (a run resumes from it), best, swa, ema, or snapshot (a member of an ensemble, one checkpoint each).
    `pinned`: it is kept until it is unpinned. `superseded`: retention would remove it, only the pin keeps it.
    """

    id: str
    object: Literal["checkpoint"]
    job: str
    attempt: int
    step: int
    epoch: float
    kind: str
    metrics: dict[str, Any]
    sha256: str
    bytes: int
    created_at: str
    pinned: bool
    superseded: bool
    links: dict[str, str]


class ConditionalHeaders(BaseModel):
    """Headers of range and conditional requests."""

    range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


@router.get(
    "/jobs/{job_id}/checkpoints",
    operation_id="list_checkpoints",
    response_model=Page[Checkpoint],
    responses=problem_responses(404),
)
def list_checkpoints(job_id: JobId, caller: Caller, service: Running) -> JsonResponse:
    """The checkpoints of a job, oldest first."""
    return JsonResponse(
        page_envelope([_checkpoint_document(row) for row in list_checkpoint_rows(service.db, caller.project, job_id)])
    )


@router.get(
    "/checkpoints/{checkpoint_id}",
    operation_id="get_checkpoint",
    response_model=Checkpoint,
    responses=problem_responses(404),
)
def get_checkpoint(checkpoint_id: CheckpointId, caller: Caller, service: Running) -> JsonResponse:
    """One checkpoint."""
    return _checkpoint_response(get_checkpoint_row(service.db, caller.project, checkpoint_id))


@router.post(
    "/checkpoints/{checkpoint_id}/pin",
    operation_id="pin_checkpoint",
    response_model=Checkpoint,
    responses=problem_responses(404, 409, 412, 413, 415),
)
def pin_checkpoint(checkpoint_id: CheckpointId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Keep a checkpoint beyond the retention fields in `checkpoints`. Idempotent; 409 while it is being removed."""
    return _checkpoint_response(add_pin(service.db, caller.project, checkpoint_id, fits))


@router.delete(
    "/checkpoints/{checkpoint_id}/pin",
    operation_id="unpin_checkpoint",
    status_code=204,
    responses=problem_responses(404, 412, 413, 415),
)
def unpin_checkpoint(checkpoint_id: CheckpointId, fits: IfMatch, caller: Caller, service: Running) -> Response:
    """Remove the pin. Idempotent. A checkpoint that retention would not keep is removed soon."""
    remove_pin(service.db, caller.project, checkpoint_id, fits)
    return Response(status_code=204)


LINK_SECONDS = 300
"""Seconds for which a presigned URL of the store is valid. A download has to begin in this time, not to end."""

_LOCATION = {"headers": {"Location": {"schema": {"type": "string", "format": "uri"}}}}
_BINARY = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}


@router.get(
    "/checkpoints/{checkpoint_id}/content",
    operation_id="get_checkpoint_content",
    response_class=Response,
    responses={
        200: {"description": "The weights, as safetensors", **_BINARY},
        206: {"description": "The one range asked for", **_BINARY},
        304: {"description": "If-None-Match named this content"},
        307: {"description": "The same content, with ranges, at a URL that is good for minutes", **_LOCATION},
        **problem_responses(404, 416, 422),
    },
)
def get_checkpoint_content(
    request: Request,
    checkpoint_id: CheckpointId,
    caller: Caller,
    service: Running,
    conditions: Annotated[ConditionalHeaders, Header()],
) -> Response:
    """The weights as a safetensors file. The ETag is its SHA-256. A request for several ranges gets the whole file.

    An S3 store serves the file itself, by a redirect; HEAD is answered here in every case.
    """
    row = get_checkpoint_row(service.db, caller.project, checkpoint_id)
    etag = f'"{row.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "private, max-age=31536000, immutable"}
    if matches_etag(conditions.if_none_match, etag):
        return Response(status_code=304, headers=headers)
    span = parse_range(conditions.range, conditions.if_range, etag, row.bytes)
    if (url := _redirect_url(request, service, row)) is not None:
        # A cached redirect would point to an expired URL after a few minutes.
        return Response(status_code=307, headers={"Location": url, "Cache-Control": "no-store"})
    whole = ByteRange(0, row.bytes, row.bytes)
    asked = span or whole
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Length": str(asked.end - asked.start),
        "Content-Disposition": f'attachment; filename="{row.job_id}-{row.kind}-{row.step}.safetensors"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(row.sha256)).decode()}:",
    }
    if span is not None:
        headers["Content-Range"] = span.content_range
    blocks = iter(()) if request.scope["basin.head"] else _open_range(service.store, row, asked)
    status = 200 if span is None else 206
    return StreamingResponse(blocks, status, headers, media_type="application/octet-stream")


def _redirect_url(request: Request, service: Service, row: CheckpointRow) -> str | None:
    """The store's URL of the weights; None: this service sends them. The URL is valid for GET only, so not for HEAD."""
    if request.scope["basin.head"] or service.settings.downloads == "stream":
        return None
    return service.store.presigned_url(_weights_key(row), LINK_SECONDS)


def _weights_key(row: CheckpointRow) -> str:
    return f"{row.key}/{row.files['weights']['name']}"


def _open_range(store: Store, row: CheckpointRow, span: ByteRange) -> Iterator[bytes]:
    """The blocks of the range. The first is fetched here, so that a missing file can still be reported as 404."""
    try:
        blocks = iter(store.open_range(_weights_key(row), span.start, span.end))
        first = next(blocks, b"")
    except StoreMissing as error:
        raise NotFound("The content of this checkpoint is no longer in the store.") from error
    return itertools.chain((first,), blocks)


def _checkpoint_response(row: CheckpointRow) -> JsonResponse:
    return JsonResponse(_checkpoint_document(row), headers={"ETag": format_etag(pin_version(row))})


def _checkpoint_document(row: CheckpointRow) -> dict[str, object]:
    own = f"/v1/checkpoints/{row.id}"
    return {
        "id": row.id,
        "object": "checkpoint",
        "job": row.job_id,
        "attempt": row.attempt,
        "step": row.step,
        "epoch": row.epoch,
        "kind": row.kind,
        "metrics": row.metrics,
        "sha256": row.sha256,
        "bytes": row.bytes,
        "created_at": format_timestamp(row.created_at),
        "pinned": row.pinned_at is not None,
        "superseded": bool(row.superseded),
        "links": {"self": own, "content": f"{own}/content", "pin": f"{own}/pin", "job": f"/v1/jobs/{row.job_id}"},
    }
