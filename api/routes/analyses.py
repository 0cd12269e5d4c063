"""Analyses of existing weights. They are queued, run, pause and end as jobs do."""

import itertools
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Path as InPath
from fastapi import Query as InQuery
from fastapi.responses import Response, StreamingResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.auth import Caller
from api.dependencies import AnalysisId, Body, Running, Service
from api.job_query import Status
from api.json_documents import JsonResponse, parse_json
from api.long_poll import ConditionalGet, IfMatch, answer_when_changed, estimate_end, forecast_for, queue_position
from api.openapi import json_body, problem_responses
from api.paging import Page, Paging, page_envelope
from api.ranges import matches_etag
from api.resources import Resource, SharedFields, delete_one, entry_of, path_of, promise_of, shared_fields
from api.routes.events import Event, EventsQuery, stream_events
from core.errors import NotFound
from core.ids import is_id
from core.jobs.analyses import InputRef, create_analysis, inputs_of, list_analysis_views, result_of
from core.jobs.checkpoints.records import CheckpointRow
from core.jobs.kinds import ANALYSIS
from core.jobs.queries import JobView, get_job_view
from core.jobs.queue.estimates import QueueForecast
from core.jobs.search import JobSearch
from core.jobs.verbs import request_cancel, request_pause, request_resume
from core.store.base import StoreMissing

router = APIRouter(prefix="/analyses", tags=["analyses"])

MEDIA_TYPES = {"svg": "image/svg+xml", "png": "image/png", "npz": "application/octet-stream"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""The Content-Security-Policy of pictures: no script and no external resource, whatever a picture contains."""
PICTURE = re.compile(r"[a-z0-9_-]{1,64}\.(svg|png)")
SOME_JOB = "job_01hzzzzzzzzzzzzzzzzzzzzzzz"
EXAMPLE = {"kind": "average", "checkpoints": [{"job": SOME_JOB}, {"job": SOME_JOB, "weights": "last"}]}
REFUSALS = problem_responses(404, 409, 412, 413, 415)
LINKS: Final = {name: name for name in ("cancel", "pause", "resume", "events", "content")}
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class Tiles(BaseModel):
    """Progress: `step` of `steps` tiles are done. `eta_seconds` is the estimated time until the end."""

    step: int
    steps: int | None
    fraction: float
    eta_seconds: float | None


class Subject(BaseModel):
    """What is analyzed: a checkpoint of a job; the training of the job where `checkpoint` is null; or the result of an
    analysis, whose id is then in `job`.
    """

    job: str
    checkpoint: str | None
    step: int
    kind: str | None


class Analysis(SharedFields):
    """An analysis: its request and its state.

    `results` are the numbers, `pictures` the URLs of the pictures by name; lists leave both out. The raw arrays are an
    npz file at links.content.
    """

    model_config = ConfigDict(extra="allow")

    object: Literal["analysis"]
    kind: str
    progress: Tiles
    subjects: list[Subject]
    results: dict[str, Any] | None
    pictures: dict[str, str]
    stop_reason: str | None


@router.post(
    "",
    operation_id="submit_analysis",
    status_code=201,
    response_model=Analysis,
    responses={
        200: {"model": Analysis, "description": "The first analysis of this Idempotency-Key"},
        **problem_responses(400, 408, 409, 413, 415, 422, 507),
    },
    openapi_extra=json_body("AnalysisRequest", two_checkpoints=EXAMPLE),
)
def submit_analysis(
    body: Body,
    caller: Caller,
    service: Running,
    idempotency_key: Annotated[str | None, Header(pattern=r"^[\x20-\x7e]{1,255}$")] = None,
) -> JsonResponse:
    """Analyze a job, a checkpoint, or several. The analyzed checkpoints are kept until the analysis has ended."""
    document = parse_json(body)
    spec = ANALYSIS.parse_spec(body, document)
    promise = promise_of(idempotency_key, ["analysis", document])
    done = create_analysis(service.db, spec, entry_of(caller, service), promise)
    return ANALYSES.answer_created(service, caller.project, done)


def _id_validator(prefix: str) -> AfterValidator:
    def check_id(text: str) -> str:
        if not is_id(text, prefix):
            raise ValueError(f"not an id that begins with {prefix}_")
        return text

    return AfterValidator(check_id)


class AnalysesQuery(Paging):
    """Which analyses."""

    status: Annotated[
        list[Status], Field(default_factory=list, max_length=8, description="any of these; repeat it for more")
    ]
    job: Annotated[str | None, _id_validator("job"), Field(description="those that analyze this job")] = None
    after: Annotated[str | None, _id_validator("an"), Field(description="the `last_id` of the page before")] = None


@router.get("", operation_id="list_analyses", response_model=Page[Analysis], responses=problem_responses(422))
def list_analyses(query: Annotated[AnalysesQuery, InQuery()], caller: Caller, service: Running) -> JsonResponse:
    """Analyses, newest first by default, without their numbers."""
    views, more = list_analysis_views(
        service.db,
        caller.project,
        JobSearch(query.status),
        of_job=query.job,
        after=query.after,
        limit=query.limit,
        order=query.order,
    )
    expected, inputs = forecast_for(service, views), inputs_of(service.db, [view.id for view in views])
    shown = [_analysis_document(view, expected, inputs[view.id], None) | {"results": None} for view in views]
    return JsonResponse(page_envelope(shown, has_more=more))


@router.get(
    "/{analysis_id}",
    operation_id="get_analysis",
    response_model=Analysis,
    responses={
        304: {"description": "Nothing but `queue` and `eta_seconds` may have changed"},
        **problem_responses(404),
    },
)
async def get_analysis(  # noqa: PLR0913 - what a request may bring
    *,
    analysis_id: AnalysisId,
    caller: Caller,
    service: Running,
    request: Request,
    if_none_match: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header(description="`wait=30`: answer when it changes, or after 30 s")] = None,
) -> Response:
    """One analysis, with its numbers. Conditions and waiting are those of jobs."""
    return await answer_when_changed(
        request, ConditionalGet(service, caller.project, analysis_id, if_none_match, prefer), ANALYSES.answer
    )


@router.post(
    "/{analysis_id}/cancel",
    operation_id="cancel_analysis",
    status_code=202,
    response_model=Analysis,
    responses=REFUSALS,
)
def cancel_analysis(analysis_id: AnalysisId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Cancel an analysis. Its results so far are kept and marked as partial."""
    return ANALYSES.carry_out(request_cancel, service, caller.project, analysis_id, fits)


@router.post(
    "/{analysis_id}/pause", operation_id="pause_analysis", status_code=202, response_model=Analysis, responses=REFUSALS
)
def pause_analysis(analysis_id: AnalysisId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Pause an analysis: it keeps its finished tiles and frees its slot."""
    return ANALYSES.carry_out(request_pause, service, caller.project, analysis_id, fits)


@router.post(
    "/{analysis_id}/resume",
    operation_id="resume_analysis",
    status_code=202,
    response_model=Analysis,
    responses=REFUSALS,
)
def resume_analysis(analysis_id: AnalysisId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Resume a paused analysis after its finished tiles."""
    return ANALYSES.carry_out(request_resume, service, caller.project, analysis_id, fits)


@router.delete("/{analysis_id}", operation_id="delete_analysis", status_code=204, responses=REFUSALS)
def delete_analysis(analysis_id: AnalysisId, fits: IfMatch, caller: Caller, service: Running) -> Response:
    """Delete an analysis that has ended, with its numbers, arrays and pictures. 409 while it has not ended."""
    return delete_one(service, caller.project, analysis_id, fits)


@router.get(
    "/{analysis_id}/events",
    operation_id="list_analysis_events",
    response_model=Page[Event],
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "A stream of an analysis that has ended, with no event after Last-Event-ID"},
        **problem_responses(404, 422, 429),
    },
)
async def list_analysis_events(  # noqa: PLR0913 - what a request may bring
    *,
    analysis_id: AnalysisId,
    query: Annotated[EventsQuery, InQuery()],
    caller: Caller,
    service: Running,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="continue after this event of a stream")] = None,
) -> Response:
    """The events of an analysis, as a list or as a stream, as for jobs."""
    return await stream_events(request, service, caller.project, analysis_id, query, last_event_id)


@router.get(
    "/{analysis_id}/content",
    operation_id="get_analysis_content",
    response_class=Response,
    responses={
        200: {"description": "The raw arrays, as npz", "content": {"application/octet-stream": _BINARY}},
        304: {"description": "If-None-Match named this content"},
        **problem_responses(404),
    },
)
def get_analysis_content(
    analysis_id: AnalysisId,
    caller: Caller,
    service: Running,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The raw arrays as one npz file (numpy.load with allow_pickle=False reads it). 404 while there are none."""
    row = _get_result(service, caller.project, analysis_id)
    named = {"Content-Disposition": f'attachment; filename="{row.job_id}.npz"'}
    return _file_response(service, row, "weights", if_none_match, named)


@router.get(
    "/{analysis_id}/pictures/{picture}",
    operation_id="get_analysis_picture",
    response_class=Response,
    responses={
        200: {"description": "The picture", "content": {"image/svg+xml": _BINARY, "image/png": _BINARY}},
        304: {"description": "If-None-Match named this content"},
        **problem_responses(404),
    },
)
def get_analysis_picture(
    analysis_id: AnalysisId,
    picture: Annotated[str, InPath(description="one of the names in `pictures`")],
    caller: Caller,
    service: Running,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A picture, drawn when the analysis ended."""
    row = _get_result(service, caller.project, analysis_id)
    if picture not in _picture_names(row):
        raise NotFound(f"There is no such picture; there are {', '.join(_picture_names(row)) or 'none'}.")
    return _file_response(service, row, picture, if_none_match, {"Content-Security-Policy": POLICY})


def _get_result(service: Service, project: str, analysis_id: str) -> CheckpointRow:
    get_job_view(service.db, project, analysis_id)
    row = result_of(service.db, project, analysis_id)
    if row is None:
        raise NotFound("This analysis has no result yet, or its result was deleted.")
    return row


def _picture_names(row: CheckpointRow | None) -> list[str]:
    return sorted(name for name in row.files if PICTURE.fullmatch(name)) if row else []


def _file_response(
    service: Service, row: CheckpointRow, role: str, if_none_match: str | None, headers: dict[str, str]
) -> Response:
    """A file of the result; ranges are not supported, since these files are small."""
    file = row.files[role]
    tag = f'"{file["sha256"]}"'
    own = {"ETag": tag, "Cache-Control": "private, max-age=31536000, immutable", **headers}
    if matches_etag(if_none_match, tag):
        return Response(status_code=304, headers=own)
    try:
        blocks = iter(service.store.open_range(f"{row.key}/{file['name']}", 0, int(file["bytes"])))
        first = next(blocks, b"")
    except StoreMissing as error:
        raise NotFound("This file is no longer in the store.") from error
    media_type = MEDIA_TYPES[file["name"].rpartition(".")[2]]
    size = {"Content-Length": str(file["bytes"])}
    whole = itertools.chain((first,), blocks)
    return StreamingResponse(whole, 200, {**own, **size}, media_type=media_type)


def _whole(service: Service, view: JobView) -> dict[str, Any]:
    """The analysis document with its numbers and pictures."""
    inputs = inputs_of(service.db, [view.id])[view.id]
    row = result_of(service.db, view.project, view.id)
    return _analysis_document(view, forecast_for(service, [view]), inputs, row)


def _analysis_document(
    view: JobView, expected: QueueForecast | None, inputs: Sequence[InputRef], row: CheckpointRow | None
) -> dict[str, Any]:
    queue, progress = queue_position(view, expected), view.progress
    return {
        **view.spec,
        **shared_fields(ANALYSIS, view, queue, LINKS),
        "progress": {
            "step": progress.get("step", 0),
            "steps": progress.get("steps"),
            "fraction": progress.get("fraction", 0.0),
            "eta_seconds": estimate_end(view, queue, expected),
        },
        "subjects": [
            {"job": each.job_id, "checkpoint": each.checkpoint_id, "step": each.step, "kind": each.checkpoint_kind}
            for each in inputs
        ],
        "results": view.results or (row.manifest.get("numbers") if row else None),
        "pictures": {name: f"{path_of(ANALYSIS, view.id)}/pictures/{name}" for name in _picture_names(row)},
    }


ANALYSES: Final = Resource(ANALYSIS, _whole)
