"""Datasets: read, list, preview, correct, prepare again, delete. Their bytes arrive in uploads.py."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from api.auth import Caller
from api.bodies import SchemaRequest, read_body
from api.dataset_documents import UploadedDataset, dataset_document, dataset_path
from api.dependencies import Body, DatasetId, Running, Service
from api.json_documents import JsonResponse
from api.openapi import json_body, problem_responses
from api.paging import Page, Paging, StrictQuery, page_envelope
from api.resources import entry_of
from api.routes.events import MEDIA_TYPE, Event, EventsQuery, stream_events
from core.errors import Conflict
from core.ids import is_id
from core.jobs.datasets.create import correct_dataset
from core.jobs.datasets.pieces import PIECE_BYTES, find_upload
from core.jobs.datasets.prepare import cancel_preparation, prepare_again
from core.jobs.datasets.removal import delete_dataset
from core.jobs.datasets.views import DatasetSearch, DatasetStatus, get_dataset_view, list_dataset_views
from core.recipe.data.manifest import DatasetKind

router = APIRouter(prefix="/datasets", tags=["datasets"])


def _check_id(text: str) -> str:
    if not is_id(text, "ds"):
        raise ValueError("not the id of a dataset")
    return text


def _check_text(text: str) -> str:
    if "\0" in text:
        raise ValueError("no NUL")
    return text


Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_check_text)]


class DatasetsQuery(Paging):
    """Which datasets."""

    status: Annotated[
        list[DatasetStatus], Field(default_factory=list, max_length=7, description="any of these; repeat it for more")
    ]
    name: Annotated[Text | None, Field(description="this name exactly")] = None
    kind: DatasetKind | None = None
    q: Annotated[Text | None, Field(description="a text in name or id")] = None
    after: Annotated[str | None, AfterValidator(_check_id), Field(description="the `last_id` of the page before")] = (
        None
    )


class RowsQuery(StrictQuery):
    """How many rows."""

    limit: Annotated[int, Field(ge=1, le=20)] = 20


class DatasetRows(BaseModel):
    """The first rows, as they were stored when the dataset was prepared; values by column."""

    object: Literal["dataset_rows"]
    dataset: str
    examples: int
    data: list[dict[str, Any]]


def answer_dataset(service: Service, project: str, dataset_id: str, status: int = 200) -> JsonResponse:
    """The response with the whole document of a dataset."""
    view = get_dataset_view(service.db, project, dataset_id)
    headers = {"Location": dataset_path(dataset_id)} if status in {201, 202} else None
    return JsonResponse(dataset_document(view, PIECE_BYTES), status, headers)


@router.get("", operation_id="list_datasets", response_model=Page[UploadedDataset], responses=problem_responses(422))
def list_datasets(query: Annotated[DatasetsQuery, InQuery()], caller: Caller, service: Running) -> JsonResponse:
    """Datasets, newest first by default, without their columns."""
    search = DatasetSearch(query.status, query.name, query.kind, query.q)
    views, more = list_dataset_views(
        service.db, caller.project, search, after=query.after, limit=query.limit, order=query.order
    )
    return JsonResponse(page_envelope([dataset_document(view, PIECE_BYTES) for view in views], has_more=more))


@router.get(
    "/{dataset_id}", operation_id="get_dataset", response_model=UploadedDataset, responses=problem_responses(404)
)
def get_dataset(dataset_id: DatasetId, caller: Caller, service: Running) -> JsonResponse:
    """One dataset with what was understood of it: columns, classes, statistics, warnings."""
    return answer_dataset(service, caller.project, dataset_id)


@router.get(
    "/{dataset_id}/rows",
    operation_id="get_dataset_rows",
    response_model=DatasetRows,
    responses=problem_responses(404, 409, 422),
)
def get_dataset_rows(
    dataset_id: DatasetId, query: Annotated[RowsQuery, InQuery()], caller: Caller, service: Running
) -> JsonResponse:
    """The first rows of a ready dataset."""
    view = get_dataset_view(service.db, caller.project, dataset_id)
    if view.manifest is None or view.status != "ready":
        raise Conflict(f"The dataset is not ready: it is {view.status}.", extra={"current_status": view.status})
    rows = [dict(row) for row in view.manifest.preview[: query.limit]]
    return JsonResponse(
        {"object": "dataset_rows", "dataset": dataset_id, "examples": view.manifest.examples, "data": rows}
    )


@router.get(
    "/{dataset_id}/events",
    operation_id="list_dataset_events",
    response_model=Page[Event],
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}},
        204: {"description": "A stream of a preparation that has ended or not begun, with no event left"},
        **problem_responses(404, 422, 429),
    },
)
async def list_dataset_events(  # noqa: PLR0913 - what a request may bring
    *,
    dataset_id: DatasetId,
    query: Annotated[EventsQuery, InQuery()],
    caller: Caller,
    service: Running,
    request: Request,
    last_event_id: Annotated[str | None, Header(description="continue after this event of a stream")] = None,
) -> Response:
    """The events of the newest preparation of a dataset, as those of a job."""
    row = await run_in_threadpool(find_upload, service.db, caller.project, dataset_id)
    if row.job_id is None:
        return JsonResponse(page_envelope([]))
    return await stream_events(request, service, caller.project, row.job_id, query, last_event_id)


@router.put(
    "/{dataset_id}/schema",
    operation_id="correct_dataset",
    status_code=201,
    response_model=UploadedDataset,
    responses=problem_responses(400, 404, 408, 409, 413, 415, 422, 429),
    openapi_extra=json_body("SchemaRequest", a_category={"columns": {"zip": {"kind": "category"}}}),
)
def put_schema(dataset_id: DatasetId, body: Body, caller: Caller, service: Running) -> JsonResponse:
    """Correct what was guessed: a new dataset of the same name and bytes, which has to be prepared."""
    given = read_body(body, SchemaRequest)
    before = find_upload(service.db, caller.project, dataset_id)
    options = given.merged_with(before.options)
    fresh = correct_dataset(service.db, dataset_id, entry_of(caller, service), wanted=given.format, options=options)
    service.hints.send("light")
    return answer_dataset(service, caller.project, fresh, 201)


@router.post(
    "/{dataset_id}/prepare",
    operation_id="prepare_dataset",
    status_code=202,
    response_model=UploadedDataset,
    responses=problem_responses(404, 409, 415, 429),
)
def prepare_dataset(dataset_id: DatasetId, caller: Caller, service: Running) -> JsonResponse:
    """Prepare a dataset again whose preparation has failed or was cancelled; while it is under way nothing changes."""
    if prepare_again(service.db, dataset_id, entry_of(caller, service)):
        service.hints.send("light")
    return answer_dataset(service, caller.project, dataset_id, 202)


@router.post(
    "/{dataset_id}/cancel",
    operation_id="cancel_dataset",
    status_code=202,
    response_model=UploadedDataset,
    responses=problem_responses(404, 409, 415),
)
def cancel_dataset(dataset_id: DatasetId, caller: Caller, service: Running) -> JsonResponse:
    """Cancel a preparation. Its bytes stay for a day, so that it can be prepared again."""
    cancel_preparation(service.db, caller.project, dataset_id)
    return answer_dataset(service, caller.project, dataset_id, 202)


@router.delete("/{dataset_id}", operation_id="delete_dataset", status_code=204, responses=problem_responses(404, 409))
def delete_one_dataset(dataset_id: DatasetId, caller: Caller, service: Running) -> Response:
    """Delete a dataset; an upload or a preparation under way ends. 409 while a job that has not ended needs it."""
    delete_dataset(service.db, caller.project, dataset_id)
    return Response(status_code=204)
