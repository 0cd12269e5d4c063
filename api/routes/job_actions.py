"""Cancel, pause and resume. The request is stored and answered at once; `status` shows how far it is."""

from fastapi import APIRouter

from api.auth import Caller
from api.dependencies import JobId, Running
from api.json_documents import JsonResponse
from api.long_poll import IfMatch
from api.openapi import problem_responses
from api.routes.jobs import JOBS, Job
from core.jobs.verbs import request_cancel, request_pause, request_resume

router = APIRouter(prefix="/jobs", tags=["jobs"])

REFUSALS = problem_responses(404, 409, 412, 413, 415)


@router.post("/{job_id}/cancel", operation_id="cancel_job", status_code=202, response_model=Job, responses=REFUSALS)
def cancel_job(job_id: JobId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Stop a job and keep its last checkpoint. Idempotent; 409 when it ended otherwise."""
    return JOBS.carry_out(request_cancel, service, caller.project, job_id, fits)


@router.post("/{job_id}/pause", operation_id="pause_job", status_code=202, response_model=Job, responses=REFUSALS)
def pause_job(job_id: JobId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Pause a job: it ends its step, writes a checkpoint and frees its slot. Idempotent; 409 when it has ended."""
    return JOBS.carry_out(request_pause, service, caller.project, job_id, fits)


@router.post("/{job_id}/resume", operation_id="resume_job", status_code=202, response_model=Job, responses=REFUSALS)
def resume_job(job_id: JobId, fits: IfMatch, caller: Caller, service: Running) -> JsonResponse:
    """Resume a paused job, bit for bit as without the pause. Idempotent; 409 when it has ended."""
    return JOBS.carry_out(request_resume, service, caller.project, job_id, fits)
