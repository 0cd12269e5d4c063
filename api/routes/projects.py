"""Projects: a key belongs to one and sees nothing of the others. `default`'s administrators make them."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from api.auth import Caller
from api.bodies import ProjectRequest, read_body
from api.dependencies import Body, Running
from api.json_documents import JsonResponse, format_timestamp
from api.openapi import json_body, problem_responses
from api.paging import page_envelope
from core.errors import Forbidden
from core.jobs.projects import Project, create_project, list_projects

router = APIRouter(prefix="/projects", tags=["projects"])

EXAMPLE = {"name": "vision"}


class ProjectObject(BaseModel):
    """A project; `created_by` is the owner of the key that made it."""

    object: Literal["project"]
    name: str
    created_at: str
    created_by: str


class ProjectList(BaseModel):
    """All projects that the key may see, in the order of their names."""

    object: Literal["list"]
    data: list[ProjectObject]
    has_more: Literal[False]
    last_id: None


@router.get("", operation_id="list_projects", response_model=ProjectList, responses=problem_responses())
def get_projects(caller: Caller, service: Running) -> JsonResponse:
    """List the projects that the key may see: its own, or all of them for administrators of `default`."""
    only = None if caller.manages_projects else caller.project
    return JsonResponse(page_envelope([_project_json(each) for each in list_projects(service.db, only)]))


@router.post(
    "",
    operation_id="create_project",
    status_code=201,
    response_model=ProjectObject,
    responses=problem_responses(400, 408, 409, 413, 415, 422),
    openapi_extra=json_body("ProjectRequest", smallest=EXAMPLE),
)
def post_project(body: Body, caller: Caller, service: Running) -> JsonResponse:
    """Create a project. It needs the scope admin of the project `default`; 409 where the name is taken."""
    wanted = read_body(body, ProjectRequest)
    if not caller.manages_projects:
        raise Forbidden("New projects need the scope 'admin' of the project 'default'.")
    return JsonResponse(_project_json(create_project(service.db, wanted.name, caller.owner)), 201)


def _project_json(project: Project) -> dict[str, object]:
    return {
        "object": "project",
        "name": project.name,
        "created_at": format_timestamp(project.created_at),
        "created_by": project.created_by,
    }
