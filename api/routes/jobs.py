"""Jobs: submit, read, list."""

from functools import partial
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Request
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import BaseModel, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from api.auth import Caller
from api.dependencies import Body, JobId, Running, Service
from api.job_query import BY_METADATA, JobsQuery
from api.json_documents import JsonResponse, parse_json
from api.long_poll import (
    ConditionalGet,
    answer_when_changed,
    estimate_end,
    forecast_for,
    plugin_warning,
    queue_position,
    slot_warning,
)
from api.openapi import json_body, problem_responses
from api.paging import Page, StrictQuery, page_envelope
from api.resources import Resource, SharedFields, promise_of, shared_fields
from core.jobs.datasets.use import data_resolver
from core.jobs.health.workers import kinds_seen
from core.jobs.kinds import TRAIN
from core.jobs.plugins import find_missing_plugins
from core.jobs.queries import JobView, list_job_views
from core.jobs.queue.estimates import QueueForecast
from core.jobs.queue.submit import create_job
from core.recipe.outline import RunOutline, outline_run, outline_stored_run
from core.recipe.parse import parse_sized_job
from core.recipe.plugins import plugins_used
from core.recipe.shape import RunShape
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


LINKS: Final = {
    **{name: name for name in ("cancel", "pause", "resume", "retry", "fork", "events", "metrics")},
    "metric_names": "metrics/names",
    "plot": "plot.svg",
    "checkpoints": "checkpoints",
}


class Progress(BaseModel):
    """Progress of the run; the engine adds the loss, the learning rate and the newest metrics.

    `steps` and `epochs` are null where only `seconds` end the run; `fraction` is then the share of the time.
    `eta_seconds` is the estimated time until the end: from its own rate, or from recent runs while it is queued.
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


class Advice(BaseModel):
    """A warning about a field that is valid and probably unintended."""

    code: str
    pointer: str
    message: str


class Parent(BaseModel):
    """The job that this one continues, and the step of the checkpoint."""

    job: str
    step: int


class Job(SharedFields):
    """A job: its resolved spec, with every default filled in, and its state."""

    object: Literal["job"]
    progress: Progress
    results: dict[str, dict[str, dict[str, Number]]]
    stop_reason: StopReason | None
    retried_from: Parent | None
    forked_from: Parent | None
    started_from: Parent | None
    children: list[str]
    warnings: list[Advice]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Merge the spec's fields into the schema. Inheriting them would inherit the checks of incoming specs too."""
        own = handler.resolve_ref_schema(handler(schema))
        spec = handler.resolve_ref_schema(handler(JobSpec.__pydantic_core_schema__))
        return {**own, "properties": spec["properties"] | own["properties"], "additionalProperties": False}


class DryRun(BaseModel):
    """The job that this spec would make. Nothing was stored."""

    object: Literal["dry_run"]
    spec: dict[str, Any]
    total_steps: int | None
    steps_per_epoch: int
    warnings: list[Advice]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The spec is described as what comes in, whose schema is not built when this is imported."""
        own = handler.resolve_ref_schema(handler(schema))
        spec = handler(JobSpec.__pydantic_core_schema__)
        return {**own, "properties": own["properties"] | {"spec": spec}}


class SubmitQuery(StrictQuery):
    """How to submit."""

    dry_run: Annotated[bool, Field(description="validate and resolve the spec, store nothing")] = False


@router.post(
    "",
    operation_id="submit_job",
    status_code=201,
    response_model=Job,
    responses={
        200: {"model": Job | DryRun, "description": "The first job of this Idempotency-Key, or the dry run"},
        **problem_responses(400, 408, 409, 413, 415, 422, 507),
    },
    openapi_extra=json_body("JobSpec", digits_with_swa=EXAMPLE, smallest=SMALLEST),
)
def submit_job(
    body: Body,
    caller: Caller,
    service: Running,
    query: Annotated[SubmitQuery, InQuery()],
    idempotency_key: Annotated[str | None, Header(pattern=r"^[\x20-\x7e]{1,255}$")] = None,
) -> JsonResponse:
    """Submit a job. With an Idempotency-Key the same request can be repeated safely: it makes one job."""
    document = parse_json(body)
    spec, shape = parse_sized_job(body, data_resolver(service.db, caller.project))
    outline = outline_run(spec, shape)
    if query.dry_run:
        return JsonResponse(_dry_run(spec, shape, outline, service))
    done = create_job(
        service.db,
        spec,
        owner=caller.owner,
        project=caller.project,
        idempotency=promise_of(idempotency_key, document),
        age_step=service.settings.age_step_seconds,
        limits=caller.limits,
        lost_after=service.settings.lease_seconds,
    )
    wanted = JOBS if not done.created else Resource(TRAIN, partial(_job_document, outline=outline))
    return wanted.answer_created(service, caller.project, done)


@router.get(
    "",
    operation_id="list_jobs",
    response_model=Page[Job],
    responses=problem_responses(422),
    openapi_extra={"parameters": [BY_METADATA]},
)
def list_jobs(query: Annotated[JobsQuery, InQuery()], caller: Caller, service: Running) -> JsonResponse:
    """Jobs, newest first by default."""
    views, more = list_job_views(
        service.db, caller.project, query.to_job_search(), after=query.after, limit=query.limit, order=query.order
    )
    expected = forecast_for(service, views)
    return JsonResponse(
        page_envelope([_shown_with(view, expected, outline_stored_run(view.spec)) for view in views], has_more=more)
    )


@router.get(
    "/{job_id}",
    operation_id="get_job",
    response_model=Job,
    responses={
        304: {"description": "Unchanged, except possibly `queue`, `eta_seconds` and the warning `no_slot`"},
        **problem_responses(404),
    },
)
async def get_job(  # noqa: PLR0913 - what a request may bring
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
    get = ConditionalGet(service, caller.project, job_id, if_none_match, prefer)
    return await answer_when_changed(request, get, JOBS.answer)


def _dry_run(spec: JobSpec, shape: RunShape, outline: RunOutline, service: Service) -> dict[str, object]:
    with service.db.read() as connection:
        kinds = kinds_seen(connection, service.settings.lease_seconds)
        missing = find_missing_plugins(connection, plugins_used(spec), service.settings.lease_seconds)
    return {
        "object": "dry_run",
        "spec": spec.dump(),
        "total_steps": outline.total_steps,
        "steps_per_epoch": shape.run.steps_per_epoch,
        "warnings": _spec_warnings(outline) + slot_warning(TRAIN.slot_needed(spec), kinds) + plugin_warning(missing),
    }


def _spec_warnings(outline: RunOutline) -> list[dict[str, str]]:
    return [{"code": w.code, "pointer": w.pointer, "message": w.message} for w in outline.warnings]


def _job_document(service: Service, view: JobView, outline: RunOutline) -> dict[str, object]:
    """The stored spec, unchanged, with the state of the job."""
    return _shown_with(view, forecast_for(service, [view]), outline)


def _shown_with(view: JobView, expected: QueueForecast | None, outline: RunOutline) -> dict[str, object]:
    queue = queue_position(view, expected)
    return {
        "id": view.id,
        "object": TRAIN.noun,
        **view.spec,
        **shared_fields(TRAIN, view, queue, LINKS),
        "progress": _progress_document(view, outline) | {"eta_seconds": estimate_end(view, queue, expected)},
        "results": view.results or {},
        "retried_from": _parent_document(view, "retry"),
        "forked_from": _parent_document(view, "fork"),
        "started_from": _parent_document(view, "from"),
        "children": list(view.children),
        "warnings": _spec_warnings(outline) + (_queue_warnings(view, expected) if queue and expected else []),
    }


def _queue_warnings(view: JobView, expected: QueueForecast) -> list[dict[str, str]]:
    missing = expected.missing_plugin(view.plugins)
    return slot_warning(view.needs, expected.slots) + plugin_warning(missing)


def _parent_document(view: JobView, verb: str) -> dict[str, object] | None:
    return {"job": view.parent_id, "step": view.parent_step} if view.parent_verb == verb else None


def _progress_document(view: JobView, outline: RunOutline) -> dict[str, object]:
    known: dict[str, object] = {
        "step": 0,
        "steps": outline.total_steps,
        "epoch": 0,
        "epochs": outline.epochs,
        "fraction": 0.0,
    }
    return known | view.progress


JOBS: Final = Resource(TRAIN, lambda service, view: _job_document(service, view, outline_stored_run(view.spec)))
