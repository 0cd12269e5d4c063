"""Jobs: submit, read, list."""

import hashlib
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.auth import Caller, Principal
from api.deps import Body, JobId, Running, Service
from api.documents import Json, parse, timestamp
from api.looking import Look, eta, etag, looked, outlook_of, place, slot_warning
from api.openapi import problems, reads
from api.paging import Page, Query, page
from api.search import BY_METADATA, JobsQuery, Status
from core.errors import Conflict, NotFound
from core.jobs.queries import JobView, get_job, list_jobs
from core.jobs.submit import Entry, Idempotency, Submitted, needs, submit
from core.jobs.waiting import Outlook
from core.jobs.workers import kinds_seen
from core.recipe.parse import parse_job
from core.recipe.spec import JobSpec
from core.recipe.stopping import StopReason

router = APIRouter(prefix="/jobs", tags=["jobs"])

Number = float | Literal["NaN", "Infinity", "-Infinity"] | None

EXAMPLE = {
    "name": "digits-cosine-swa",
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits", "validation": 0.1, "test": 0.2, "split_seed": 0},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
    "batch_size": 32,
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "swa": True,
    "epochs": 30,
    "seed": 0,
}
SMALLEST = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}, "epochs": 10}


class Progress(BaseModel):
    """Where the run stands; the engine adds the loss, the rate and the newest metrics.

    `steps` and `epochs` are null where only `seconds` end the run; `fraction` is then the share of the time.
    `eta_seconds` until it ends: a guess, from its own pace, or from the last runs while it waits.
    """

    step: int
    steps: int | None
    epoch: int
    epochs: int | None
    fraction: float
    eta_seconds: float | None
    loss: Number = None
    lr: Number = None
    metrics: dict[str, Number] = {}


class Place(BaseModel):
    """`ahead` of the jobs that want the same slots are served first; `position` counts from 1.

    `eta_seconds` until it starts, a guess.
    """

    position: int
    ahead: int
    eta_seconds: float | None


class Moment(BaseModel):
    """From `at` on, the job was `status`."""

    status: Status
    at: str
    detail: str | None


class Failure(BaseModel):
    """Why the job failed, and what to do about it."""

    code: str
    message: str
    remedy: str | None = None


class Advice(BaseModel):
    """Something that is allowed and probably not meant."""

    code: str
    pointer: str
    message: str


class Parent(BaseModel):
    """The job that this one goes on from, and the step of the checkpoint where it does."""

    job: str
    step: int


class Job(BaseModel):
    """A job: its resolved spec, every default filled in, and what became of it."""

    id: str
    object: Literal["job"]
    project: str
    status: Status
    status_detail: str | None
    attempt: int
    progress: Progress
    queue: Place | None
    timeline: list[Moment]
    results: dict[str, dict[str, dict[str, Number]]]
    stop_reason: StopReason | None
    error: Failure | None
    resume: dict[str, Any] | None
    environment: dict[str, Any] | None
    retried_from: Parent | None
    forked_from: Parent | None
    started_from: Parent | None
    children: list[str]
    warnings: list[Advice]
    created_at: str
    started_at: str | None
    finished_at: str | None
    links: dict[str, str]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The fields of the spec stand beside these; inheriting them would inherit the checks of what comes in too."""
        own = handler.resolve_ref_schema(handler(schema))
        spec = handler.resolve_ref_schema(handler(JobSpec.__pydantic_core_schema__))
        return {**own, "properties": spec["properties"] | own["properties"], "additionalProperties": False}


class DryRun(BaseModel):
    """What a job would be. Nothing was stored."""

    object: Literal["dry_run"]
    spec: JobSpec
    total_steps: int | None
    steps_per_epoch: int
    warnings: list[Advice]


class SubmitQuery(Query):
    """How to submit."""

    dry_run: Annotated[bool, Field(description="only say what the job would be")] = False


@router.post(
    "",
    operation_id="submit_job",
    status_code=201,
    response_model=Job,
    responses={
        200: {"model": Job | DryRun, "description": "The first job of this Idempotency-Key, or the dry run"},
        **problems(400, 408, 409, 413, 415, 422, 507),
    },
    openapi_extra=reads("JobSpec", digits_with_swa=EXAMPLE, smallest=SMALLEST),
)
def submit_job(
    body: Body,
    caller: Caller,
    service: Running,
    query: Annotated[SubmitQuery, InQuery()],
    idempotency_key: Annotated[str | None, Header(pattern=r"^[\x20-\x7e]{1,255}$")] = None,
) -> Json:
    """Train something. With an Idempotency-Key the same post can be sent again safely: there will be one job."""
    document = parse(body)
    spec = parse_job(body).resolved()
    if query.dry_run:
        return Json(_dry(spec, service))
    promise = Idempotency(idempotency_key, digest(document)) if idempotency_key is not None else None
    done = submit(
        service.db,
        spec,
        owner=caller.owner,
        project=caller.project,
        idempotency=promise,
        age_step=service.settings.age_step_seconds,
        limits=caller.limits,
        lost_after=service.settings.lease_seconds,
    )
    return made(service, caller.project, done)


def made(service: Service, project: str, done: Submitted) -> Json:
    """The answer to who wanted a new job: it, or the one that an Idempotency-Key has made before."""
    if done.created:
        service.hints.send(done.needs)
    try:
        view = get_job(service.db, project, done.job_id)
    except NotFound:
        raise Conflict("The job of this Idempotency-Key was deleted; use a new key for a new job.") from None
    found = answer(service, view, 201 if done.created else 200)
    found.headers["Location"] = f"/v1/jobs/{done.job_id}"
    return found


def entry_of(caller: Principal, service: Service) -> Entry:
    """How a new job of this caller comes into the queue."""
    settings = service.settings
    return Entry(caller.owner, caller.limits, settings.age_step_seconds, settings.lease_seconds, caller.project)


@router.get(
    "",
    operation_id="list_jobs",
    response_model=Page[Job],
    responses=problems(422),
    openapi_extra={"parameters": [BY_METADATA]},
)
def get_jobs(query: Annotated[JobsQuery, InQuery()], caller: Caller, service: Running) -> Json:
    """Jobs, newest first unless asked otherwise."""
    views, more = list_jobs(
        service.db, caller.project, query.search(), after=query.after, limit=query.limit, order=query.order
    )
    expected = outlook_of(service, views)
    return Json(page([_shown(view, expected) for view in views], has_more=more))


@router.get(
    "/{job_id}",
    operation_id="get_job",
    response_model=Job,
    responses={
        304: {"description": "Nothing but `queue`, `eta_seconds` and a warning that no slot is there may have changed"},
        **problems(404),
    },
)
async def get_one(  # noqa: PLR0913 - what a request may bring
    *,
    job_id: JobId,
    caller: Caller,
    service: Running,
    request: Request,
    if_none_match: Annotated[str | None, Header()] = None,
    prefer: Annotated[str | None, Header(description="`wait=30`: answer when the job changes, or after 30 s")] = None,
) -> Response:
    """One job. Poll it with If-None-Match: the ETag covers everything but `queue`, `eta_seconds` and
    the warning `no_slot`.

    `Prefer: wait=N` answers as soon as the job differs from the ETag in If-None-Match, or from now; after at most 60 s.
    """
    look = Look(service, caller.project, job_id, if_none_match, prefer)
    return await looked(request, look, answer)


def digest(document: object) -> str:
    """Equal for equal documents, whatever their spaces and the order of their keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def answer(service: Service, view: JobView, status: int) -> Json:
    return Json(_shown(view, outlook_of(service, [view])), status, {"ETag": etag(view.version)})


def _dry(spec: JobSpec, service: Service) -> dict[str, object]:
    run = spec.run_length()
    with service.db.read() as connection:
        kinds = kinds_seen(connection, service.settings.lease_seconds)
    return {
        "object": "dry_run",
        "spec": spec.dump(),
        "total_steps": run.total_steps if run.bounded else None,
        "steps_per_epoch": run.steps_per_epoch,
        "warnings": _warnings(spec) + slot_warning(needs(spec), kinds),
    }


def _warnings(spec: JobSpec) -> list[dict[str, str]]:
    return [{"code": w.code, "pointer": w.pointer, "message": w.message} for w in spec.warnings()]


def _shown(view: JobView, expected: Outlook | None) -> dict[str, object]:
    spec = JobSpec.model_validate_json(json.dumps(view.spec))
    own = f"/v1/jobs/{view.id}"
    queue = place(view, expected)
    return {
        "id": view.id,
        "object": "job",
        **view.spec,
        "project": view.project,
        "status": view.status,
        "status_detail": view.status_detail,
        "attempt": view.attempt,
        "progress": _progress(view, spec) | {"eta_seconds": eta(view, queue, expected)},
        "queue": queue,
        "timeline": [{"status": m.status, "at": timestamp(m.at), "detail": m.detail} for m in view.timeline],
        "results": view.results or {},
        "stop_reason": view.stop_reason,
        "error": view.error,
        "resume": view.resume,
        "environment": view.environment,
        "retried_from": _parent(view, "retry"),
        "forked_from": _parent(view, "fork"),
        "started_from": _parent(view, "from"),
        "children": list(view.children),
        "warnings": _warnings(spec) + (slot_warning(view.needs, expected.slots) if queue and expected else []),
        "created_at": timestamp(view.created_at),
        "started_at": timestamp(view.started_at),
        "finished_at": timestamp(view.finished_at),
        "links": {
            "self": own,
            "cancel": f"{own}/cancel",
            "pause": f"{own}/pause",
            "resume": f"{own}/resume",
            "retry": f"{own}/retry",
            "fork": f"{own}/fork",
            "events": f"{own}/events",
            "metrics": f"{own}/metrics",
            "metric_names": f"{own}/metrics/names",
            "plot": f"{own}/plot.svg",
            "checkpoints": f"{own}/checkpoints",
        },
    }


def _parent(view: JobView, verb: str) -> dict[str, object] | None:
    return {"job": view.parent_id, "step": view.parent_step} if view.parent_verb == verb else None


def _progress(view: JobView, spec: JobSpec) -> dict[str, object]:
    run = spec.run_length()
    known: dict[str, object] = {
        "step": 0,
        "steps": run.total_steps if run.bounded else None,
        "epoch": 0,
        "epochs": -(-run.total_steps // run.steps_per_epoch) if run.bounded else None,
        "fraction": 0.0,
    }
    return known | view.progress
