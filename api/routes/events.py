"""The events of a job: as a list, or as a live stream."""

from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth import Caller, is_still_authorized
from api.dependencies import JobId, Running, Service
from api.json_documents import JsonResponse
from api.openapi import problem_responses
from api.paging import Page, StrictQuery, page_envelope
from api.sse import HEADERS, EventStream, event_document
from core.errors import FieldProblem, InvalidRequest
from core.jobs.events.cursor import START, Cursor
from core.jobs.events.feed import STORED, TYPES, FeedItem, FeedQuery, read_feed
from core.jobs.events.record import list_events
from core.jobs.queries import get_job_view, is_over, job_version

router = APIRouter(tags=["events"])

MEDIA_TYPE = "text/event-stream"


class Event(BaseModel):
    """An event; the content of `data` depends on the type.

    Progress and metrics are in streams only, and have no id.
    """

    id: str | None
    object: Literal["event"]
    type: Literal["status", "checkpoint", "log", "warning", "progress", "metrics"]
    attempt: int
    at: str
    data: dict[str, Any]


def _check_types(text: str) -> str:
    if not set(text.split(",")) <= set(TYPES):
        raise ValueError(f"one or more of {', '.join(TYPES)}, separated by commas")
    return text


class EventsQuery(StrictQuery):
    """Which events."""

    after: Annotated[
        str | None, Field(description="the `last_id` of the page before, or the id of an event of a stream")
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="of a page; streams have none")] = 100
    types: Annotated[
        str | None, AfterValidator(_check_types), Field(description="separated by commas; all when left out")
    ] = None

    def wanted_types(self) -> frozenset[str]:
        return frozenset(TYPES if self.types is None else self.types.split(","))


@router.get(
    "/jobs/{job_id}/events",
    operation_id="list_events",
    response_model=Page[Event],
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        204: {"description": "A stream of a job that has ended, with no event after Last-Event-ID"},
        **problem_responses(404, 422, 429),
    },
)
async def list_job_events(  # noqa: PLR0913 - what a request may bring
    *,
    job_id: JobId,
    query: Annotated[EventsQuery, InQuery()],
    caller: Caller,
    service: Running,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="continue after this event of a stream")] = None,
) -> Response:
    """A job's events, oldest first. With `Accept: text/event-stream` they come as they happen, until the job ends."""
    return await stream_events(request, service, caller.project, job_id, query, last_event_id)


async def stream_events(  # noqa: PLR0913, PLR0917 - what a request may bring
    request: Request, service: Service, project: str, job_id: str, query: EventsQuery, last_event_id: str | None
) -> Response:
    """The events of a job or an analysis, in the form that the request prefers."""
    if not _wants_stream(request):
        return await run_in_threadpool(_list_page, service, project, job_id, query)
    ask = FeedQuery(job_id, _start_cursor(last_event_id, query.after), query.wanted_types())
    if await run_in_threadpool(_nothing_left, service, project, ask):
        return Response(status_code=204, headers={"Vary": "Accept"})
    if request.scope["basin.head"]:
        return Response(media_type=MEDIA_TYPE, headers=HEADERS)
    return EventStream(service.live, project, ask, partial(is_still_authorized, request))


def _wants_stream(request: Request) -> bool:
    kinds = ",".join(request.headers.getlist("accept")).split(",")
    return MEDIA_TYPE in {kind.partition(";")[0].strip().lower() for kind in kinds}


def _start_cursor(last_event_id: str | None, after: str | None) -> Cursor:
    """The cursor; Last-Event-ID wins over `after`, since a browser reconnects with the header and the old address."""
    pointer, text = ("/header/Last-Event-ID", last_event_id) if last_event_id else ("/query/after", after)
    if not text:
        return START
    try:
        return Cursor.parse(text)
    except InvalidRequest as error:
        raise InvalidRequest(errors=(FieldProblem(pointer, error.message),)) from None


def _nothing_left(service: Service, project: str, ask: FeedQuery) -> bool:
    """Whether a stream would end at once. A browser reconnects after the end of a stream, but not after 204."""
    if not is_over(get_job_view(service.db, project, ask.job_id)):
        return False
    found = read_feed(service.db, ask.job_id, [ask])
    return not (found and (found[0].items or found[0].more))


def _list_page(service: Service, project: str, job_id: str, query: EventsQuery) -> JsonResponse:
    job_version(service.db, project, job_id)  # 404 for the jobs of others
    types = query.wanted_types().intersection(STORED)
    after = _start_cursor(None, query.after).event
    found = list_events(service.db, project, job_id, after=after, limit=query.limit + 1, types=types)
    items = [FeedItem(replace(START, event=one.id), one.id, one.type, one.attempt, one.at, one.data) for one in found]
    answer = JsonResponse(
        page_envelope([event_document(item) for item in items[: query.limit]], has_more=len(items) > query.limit)
    )
    answer.headers["Vary"] = "Accept"
    return answer
