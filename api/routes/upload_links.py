"""Uploads by presigned URLs: the bytes go to the object store directly, and the service records them."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import Caller
from api.bodies import LinksRequest, PartsRequest, read_body
from api.dataset_documents import UploadedDataset
from api.dependencies import Body, DatasetId, MaybeBody, Running
from api.json_documents import JsonResponse
from api.openapi import json_body, problem_responses
from api.routes.datasets import answer_dataset
from api.upload_receiver import finish_upload
from core.jobs.datasets.links import LINK_SECONDS, find_parts, make_links
from core.jobs.datasets.pieces import find_upload, record_pieces

router = APIRouter(prefix="/datasets", tags=["datasets"])


class PartLink(BaseModel):
    """Where bytes `offset` to `offset + bytes` are to be put, with PUT and without any key of this service."""

    offset: int
    bytes: int
    key: str
    url: str


class UploadLinks(BaseModel):
    """Links to the parts that come next; each is valid for `seconds`."""

    object: Literal["upload_links"]
    dataset: str
    seconds: int
    parts: list[PartLink]


@router.post(
    "/{dataset_id}/links",
    operation_id="create_upload_links",
    response_model=UploadLinks,
    responses=problem_responses(400, 404, 408, 409, 413, 415, 422),
    openapi_extra=json_body("LinksRequest", required=False),
)
def post_links(dataset_id: DatasetId, body: MaybeBody, caller: Caller, service: Running) -> JsonResponse:
    """Get links to the next parts of an upload, where objects are in S3. Then name the parts at `links/complete`."""
    given = read_body(body or b"{}", LinksRequest)
    row = find_upload(service.db, caller.project, dataset_id)
    parts = [
        {"offset": link.offset, "bytes": link.bytes, "key": link.key, "url": link.url}
        for link in make_links(service.store, row, given.parts)
    ]
    return JsonResponse({"object": "upload_links", "dataset": dataset_id, "seconds": LINK_SECONDS, "parts": parts})


@router.post(
    "/{dataset_id}/links/complete",
    operation_id="complete_upload_links",
    status_code=202,
    response_model=UploadedDataset,
    responses=problem_responses(400, 404, 408, 409, 413, 415, 422, 429),
    openapi_extra=json_body("PartsRequest"),
)
def post_parts(dataset_id: DatasetId, body: Body, caller: Caller, service: Running) -> JsonResponse:
    """Record parts that were put. With the last one the upload ends, and the dataset is queued."""
    given = read_body(body, PartsRequest)
    find_upload(service.db, caller.project, dataset_id)
    pieces = find_parts(service.store, dataset_id, [(part.offset, part.key) for part in given.parts])
    settings = service.settings
    record_pieces(
        service.db,
        caller.project,
        dataset_id,
        pieces,
        limits=caller.limits,
        most_bytes=settings.upload_bytes,
        keep_seconds=settings.keep_uploads_seconds,
    )
    finish_upload(service, caller, dataset_id)
    return answer_dataset(service, caller.project, dataset_id, 202)
