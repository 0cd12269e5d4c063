"""The split of a job's dataset."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import Caller
from api.dependencies import JobId, Running
from api.json_documents import JsonResponse
from api.openapi import problem_responses
from core.jobs.splits import read_split

router = APIRouter(tags=["jobs"])


class SplitRows(BaseModel):
    """The rows of the dataset in each split, ascending. Rows count from 0, in the order of the file."""

    job: str
    object: Literal["split"]
    train: list[int]
    validation: list[int]
    test: list[int]


@router.get(
    "/jobs/{job_id}/split",
    operation_id="get_job_split",
    response_model=SplitRows,
    responses=problem_responses(404, 409),
)
def get_job_split(job_id: JobId, caller: Caller, service: Running) -> JsonResponse:
    """Which rows of its dataset a job trains on, validates on and tests on.

    409 `split_unknown` before the job has started, for more than 2,000,000 examples, and for jobs of earlier releases.
    """
    found = read_split(service.db, caller.project, job_id)
    parts = {"train": found.train, "validation": found.validation, "test": found.test}
    return JsonResponse({"job": job_id, "object": "split", **parts})
