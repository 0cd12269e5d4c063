"""Editing and deleting a job."""

from fastapi import APIRouter
from fastapi.responses import Response

from api.auth import Caller
from api.bodies import JobChanges, read_body
from api.dependencies import Body, JobId, Running
from api.json_documents import JsonResponse
from api.long_poll import IfMatch
from api.openapi import json_body, problem_responses
from api.resources import delete_one
from api.routes.jobs import JOBS, Job
from core.jobs.changes import update_job
from core.jobs.queries import get_job_view

router = APIRouter(prefix="/jobs", tags=["jobs"])

EXAMPLE = {"name": "digits, second try", "priority": 10, "metadata": {"team": "vision", "draft": None}}


@router.patch(
    "/{job_id}",
    operation_id="edit_job",
    response_model=Job,
    responses=problem_responses(400, 404, 408, 409, 412, 413, 415, 422),
    openapi_extra=json_body("JobChanges", everything=EXAMPLE),
)
def edit_job(job_id: JobId, body: Body, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Change the name, priority or metadata that are given. With If-Match: 412 when the job has changed since."""
    changes = read_body(body, JobChanges)
    update_job(
        service.db,
        caller.project,
        job_id,
        changes.model_dump(include=changes.model_fields_set),
        age_step=service.settings.age_step_seconds,
        fits=fits,
    )
    return JOBS.answer(service, get_job_view(service.db, caller.project, job_id), 200)


@router.delete(
    "/{job_id}", operation_id="delete_job", status_code=204, responses=problem_responses(404, 409, 412, 413, 415)
)
def delete_job(job_id: JobId, fits: IfMatch, caller: Caller, service: Running) -> Response:
    """Delete a job that has ended, with its metrics, events, checkpoints and files. 409 while it has not ended."""
    return delete_one(service, caller.project, job_id, fits)
