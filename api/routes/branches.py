"""Jobs that continue from a checkpoint of another job: retry and fork."""

from typing import Annotated

from fastapi import APIRouter, Header

from api.auth import Caller
from api.bodies import ForkRequest, RetryRequest, read_body
from api.dependencies import JobId, MaybeBody, Running
from api.json_documents import JsonResponse, parse_json
from api.long_poll import IfMatch
from api.openapi import json_body, problem_responses
from api.resources import entry_of, promise_of
from api.routes.jobs import JOBS, Job
from core.jobs.branch import create_fork, create_retry
from core.jobs.queue.submit import Idempotency

router = APIRouter(prefix="/jobs", tags=["jobs"])

EXAMPLE = {"at": None, "changes": {"schedule": {"name": "linear", "end_factor": 0.0}, "swa": True}}
ANSWERS = {
    200: {"model": Job, "description": "The first job of this Idempotency-Key"},
    **problem_responses(400, 404, 408, 409, 412, 413, 415, 422, 507),
}
Promise = Annotated[str | None, Header(pattern=r"^[\x20-\x7e]{1,255}$")]


@router.post(
    "/{job_id}/retry",
    operation_id="retry_job",
    status_code=201,
    response_model=Job,
    responses=ANSWERS,
    openapi_extra=json_body("RetryRequest", required=False, once_more={"again": True}),
)
def retry_job(  # noqa: PLR0913 - what a request may bring
    *, job_id: JobId, body: MaybeBody, fits: IfMatch, caller: Caller, service: Running, idempotency_key: Promise = None
) -> JsonResponse:
    """Retry a job that failed or was cancelled: a new job (`retried_from`) with the same spec continues from its last
    good checkpoint.

    A job is retried once unless `again` is true; a second retry gets 409 with `retried_as`.
    """
    wanted = read_body(body or b"{}", RetryRequest)
    promise = _branch_idempotency(idempotency_key, "retry", job_id, body or b"{}")
    entry = entry_of(caller, service)
    done = create_retry(service.db, job_id, entry, again=wanted.again, idempotency=promise, fits=fits)
    return JOBS.answer_created(service, caller.project, done)


@router.post(
    "/{job_id}/fork",
    operation_id="fork_job",
    status_code=201,
    response_model=Job,
    responses=ANSWERS,
    openapi_extra=json_body("ForkRequest", required=False, another_ending=EXAMPLE),
)
def fork_job(  # noqa: PLR0913 - as above
    *, job_id: JobId, body: MaybeBody, fits: IfMatch, caller: Caller, service: Running, idempotency_key: Promise = None
) -> JsonResponse:
    """Fork a job: a new job (`forked_from`) has the same history up to a checkpoint, metrics included, and continues
    with changed fields: another schedule or rate, SWA, more epochs, another order of the data.
    """
    wanted = read_body(body or b"{}", ForkRequest)
    promise = _branch_idempotency(idempotency_key, "fork", job_id, body or b"{}")
    entry = entry_of(caller, service)
    done = create_fork(service.db, job_id, entry, changes=wanted.changes, at=wanted.at, idempotency=promise, fits=fits)
    return JOBS.answer_created(service, caller.project, done)


def _branch_idempotency(key: str | None, verb: str, job_id: str, body: bytes) -> Idempotency | None:
    return None if key is None else promise_of(key, [verb, job_id, parse_json(body)])
