"""The bytes of datasets: in one request, in pieces by the verbs of tus 1.0, or directly to the object store."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api.auth import Caller, Principal
from api.bodies import DatasetName, DatasetRequest, FileName, S3Source, read_body
from api.dataset_documents import UploadedDataset
from api.dependencies import DatasetId, Running, Service, read_json_body
from api.errors import HttpError
from api.json_documents import parse_json
from api.openapi import json_body, problem_responses
from api.paging import StrictQuery
from api.resources import entry_of, promise_of
from api.routes.datasets import answer_dataset
from api.upload_receiver import UploadReceiver, finish_upload, receive_whole
from api.uploads import (
    DIGESTS,
    OCTETS,
    OFFSET_OCTETS,
    GivenChecksum,
    content_length,
    media_type,
    require_media_type,
    require_no_encoding,
)
from core.errors import FieldProblem, InvalidRequest, InvalidSpec, StorageFull, TooLarge
from core.jobs.datasets.create import NewDataset, create_dataset
from core.jobs.datasets.pieces import OffsetMismatch, WrongDigest, find_upload, restart_upload
from core.jobs.datasets.removal import delete_dataset
from core.jobs.datasets.rows import DatasetRow
from core.jobs.datasets.sources import check_folder_source
from core.recipe.prepare import WantedFormat
from core.store.profiles import find_s3_source, read_profiles

router = APIRouter(prefix="/datasets", tags=["datasets"])

TUS: Final = {"Tus-Resumable": "1.0.0"}
CAPABILITIES: Final = {
    "Tus-Version": "1.0.0",
    "Tus-Extension": "checksum",
    "Tus-Checksum-Algorithm": ",".join(DIGESTS),
}
NOT_STORED: Final = {"Cache-Control": "no-store"}
EXAMPLE: Final = {"name": "penguins", "format": "auto", "bytes": 13478, "filename": "penguins.csv"}
_BYTES: Final[dict[str, Any]] = {"schema": {"type": "string", "format": "binary"}}
IdempotencyKey = Annotated[str | None, Header(pattern=r"^[\x20-\x7e]{1,255}$")]


class ShortQuery(StrictQuery):
    """The announcement of a dataset whose bytes are the body."""

    name: DatasetName | None = None
    format: WantedFormat = "auto"
    filename: FileName | None = None


@router.post(
    "",
    operation_id="create_dataset",
    status_code=201,
    response_model=UploadedDataset,
    responses={
        200: {
            "model": UploadedDataset,
            "description": "The project has these bytes ready, or the Idempotency-Key is known",
        },
        202: {"model": UploadedDataset, "description": "The body was the file itself; it is queued to be prepared"},
        **problem_responses(400, 408, 409, 413, 415, 422, 429),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {**json_body("DatasetRequest", a_file=EXAMPLE)["requestBody"]["content"], OCTETS: _BYTES},
        }
    },
)
async def post_dataset(
    request: Request,
    caller: Caller,
    service: Running,
    query: Annotated[ShortQuery, InQuery()],
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Announce a dataset, whose bytes are sent next. Or send the bytes as the body, with the name in the query."""
    if media_type(request.headers) == OCTETS:
        return await _receive_short(request, caller, service, query, idempotency_key)
    body = await read_json_body(request)
    return await run_in_threadpool(_create_announced, service, caller, body, idempotency_key)


def _create_announced(service: Service, caller: Principal, body: bytes, key: str | None) -> Response:
    document = parse_json(body)
    given = read_body(body, DatasetRequest)
    _refuse_too_large(given.bytes, service)
    source = _checked_source(service, given)
    new = NewDataset(
        given.name, given.format, given.filename, given.options_document(), given.bytes, given.sha256, source
    )
    keep = service.settings.keep_uploads_seconds
    made = create_dataset(
        service.db, new, entry_of(caller, service), keep_seconds=keep, idempotency=promise_of(key, document)
    )
    if made.created and source is not None:
        service.hints.send("light")
    return answer_dataset(service, caller.project, made.dataset_id, 201 if made.created else 200)


async def _receive_short(
    request: Request, caller: Principal, service: Service, query: ShortQuery, key: str | None
) -> Response:
    if query.name is None:
        raise InvalidRequest(errors=(FieldProblem("/query/name", "required where the body is the file"),))
    require_no_encoding(request.headers)
    length = content_length(request.headers)
    _refuse_empty(length)
    _refuse_too_large(length, service)
    new = NewDataset(query.name, query.format, query.filename, {}, length)
    promise = promise_of(key, [*query.model_dump().values(), length])
    keep = service.settings.keep_uploads_seconds
    made = await run_in_threadpool(
        lambda: create_dataset(service.db, new, entry_of(caller, service), keep_seconds=keep, idempotency=promise)
    )
    row = await run_in_threadpool(find_upload, service.db, caller.project, made.dataset_id)
    unfinished = row.status == "uploading"  # also where a request with this Idempotency-Key broke off
    if unfinished:
        await run_in_threadpool(restart_upload, service.db, caller.project, made.dataset_id)
        try:
            await receive_whole(request, UploadReceiver(service, caller, made.dataset_id, 0), length, None)
        except (WrongDigest, TooLarge, StorageFull):
            if key is None:  # its id is not in the answer, so nobody would continue it
                await run_in_threadpool(delete_dataset, service.db, caller.project, made.dataset_id)
            raise
    status = 202 if unfinished else 200
    return await run_in_threadpool(answer_dataset, service, caller.project, made.dataset_id, status)


@router.put(
    "/{dataset_id}/content",
    operation_id="put_dataset_content",
    status_code=202,
    response_model=UploadedDataset,
    responses=problem_responses(400, 404, 408, 409, 413, 415, 422, 429),
    openapi_extra={"requestBody": {"required": True, "content": {OCTETS: _BYTES}}},
)
async def put_content(request: Request, dataset_id: DatasetId, caller: Caller, service: Running) -> Response:
    """Send the whole content in one request. What an earlier request has sent of it is replaced."""
    require_no_encoding(request.headers)
    length = content_length(request.headers)
    _refuse_empty(length)
    row = await run_in_threadpool(restart_upload, service.db, caller.project, dataset_id)
    if None not in {length, row.bytes} and length != row.bytes:
        raise WrongDigest(f"{length} bytes would be sent, and {row.bytes} were announced.")
    await receive_whole(request, UploadReceiver(service, caller, dataset_id, 0), row.bytes, row.sha256)
    return await run_in_threadpool(answer_dataset, service, caller.project, dataset_id, 202)


@router.get(
    "/{dataset_id}/content",
    operation_id="get_upload",
    status_code=204,
    responses={204: {"description": "Upload-Offset and Upload-Length"}, **problem_responses(404)},
)
def get_upload(dataset_id: DatasetId, caller: Caller, service: Running) -> Response:
    """How much has arrived, in the headers: with HEAD, where an upload continues. The bytes themselves are not sent."""
    row = find_upload(service.db, caller.project, dataset_id)
    return Response(status_code=204, headers=_upload_headers(row))


@router.patch(
    "/{dataset_id}/content",
    operation_id="append_dataset_content",
    status_code=204,
    responses={
        204: {"description": "Upload-Offset is where the next byte belongs"},
        **problem_responses(400, 404, 408, 409, 412, 413, 415, 422, 429),
        460: problem_responses(400)[400]
        | {"description": "The body has another checksum than Upload-Checksum says; it was discarded"},
    },
    openapi_extra={"requestBody": {"required": True, "content": {OFFSET_OCTETS: _BYTES}}},
)
async def patch_content(  # noqa: PLR0913 - what a request may bring
    *,
    request: Request,
    dataset_id: DatasetId,
    caller: Caller,
    service: Running,
    upload_offset: Annotated[int, Header(ge=0, lt=2**63)],
    tus_resumable: Annotated[str | None, Header()] = None,
) -> Response:
    """Append to an upload at `Upload-Offset`; with another offset the answer is 409 and has the true one."""
    if tus_resumable not in {None, "1.0.0"}:
        raise HttpError(412, "tus_version", "This service speaks tus 1.0.0.", TUS | CAPABILITIES)
    require_media_type(request.headers, OFFSET_OCTETS)
    require_no_encoding(request.headers)
    checksum = GivenChecksum.of(request.headers)
    row = await run_in_threadpool(find_upload, service.db, caller.project, dataset_id)
    _require_offset(row, upload_offset)
    length = content_length(request.headers)
    left = (service.settings.upload_bytes if row.bytes is None else row.bytes) - upload_offset
    if length is not None and length > left:
        raise TooLarge(f"{length} bytes would be sent, and {left} are missing.")
    receiver = UploadReceiver(service, caller, dataset_id, upload_offset, checksum)
    try:
        await receiver.receive(request, left)
    except OffsetMismatch as error:
        raise _at_another_offset(error.offset) from None
    if receiver.offset == row.bytes:
        await run_in_threadpool(finish_upload, service, caller, dataset_id)
    return Response(status_code=204, headers={**TUS, **NOT_STORED, "Upload-Offset": str(receiver.offset)})


@router.options(
    "/{dataset_id}/content",
    operation_id="get_upload_capabilities",
    status_code=204,
    responses={204: {"description": "The capabilities of this service as tus headers"}, **problem_responses(404)},
)
def get_capabilities(dataset_id: DatasetId, caller: Caller, service: Running) -> Response:
    """What of the protocol tus this service speaks."""
    find_upload(service.db, caller.project, dataset_id)
    most = str(service.settings.upload_bytes)
    return Response(status_code=204, headers={**TUS, **CAPABILITIES, "Tus-Max-Size": most})


def _upload_headers(row: DatasetRow) -> dict[str, str]:
    length = {} if row.bytes is None else {"Upload-Length": str(row.bytes)}
    return {**TUS, **NOT_STORED, **length, "Upload-Offset": str(row.received)}


def _require_offset(row: DatasetRow, offset: int) -> None:
    """Raise HttpError 409 for another offset. At the end of an upload nothing is left to append, and that is allowed:
    the answer to the last request may have been lost.
    """
    if offset != row.received or (row.status != "uploading" and offset != row.bytes):
        raise _at_another_offset(row.received)


def _at_another_offset(offset: int) -> HttpError:
    headers = {**TUS, "Upload-Offset": str(offset)}
    return HttpError(409, "offset_mismatch", f"The upload continues at offset {offset}.", headers)


def _refuse_empty(length: int | None) -> None:
    if length == 0:
        raise WrongDigest("The body is empty; a dataset has at least one byte.")


def _refuse_too_large(length: int | None, service: Service) -> None:
    most = service.settings.upload_bytes
    if length is not None and length > most:
        raise TooLarge(f"A dataset has at most {most} bytes here.")


def _checked_source(service: Service, given: DatasetRequest) -> dict[str, Any] | None:
    """The source as it is stored; None where the bytes are sent."""
    if given.source is None:
        return None
    if given.bytes is not None or given.sha256 is not None:
        raise InvalidSpec(errors=(FieldProblem("/source", "without `bytes` and `sha256`: nothing is sent"),))
    if isinstance(given.source, S3Source):
        find_s3_source(read_profiles(service.settings), given.source.profile, given.source.url)
        return given.source.model_dump()
    return check_folder_source(service.settings.dataset_roots, given.source.path)
