"""The workers and the queue."""

from typing import Annotated, Literal

from fastapi import APIRouter
from fastapi import Query as InQuery
from pydantic import BaseModel, Field

from api.auth import Caller
from api.dependencies import Running
from api.json_documents import JsonResponse, format_timestamp
from api.openapi import problem_responses
from api.paging import StrictQuery, page_envelope
from core.jobs.health.workers import (
    SlotState,
    SlotUsage,
    WorkerView,
    is_live,
    list_worker_views,
    live_workers,
    total_slots,
)
from core.jobs.queue.estimates import QueuedJob, list_queued_jobs

router = APIRouter(tags=["fleet"])


class SlotCount(BaseModel):
    """Slots of one kind."""

    slots: int
    free: int


class Gpu(BaseModel):
    """A GPU that a worker has a slot for. `device` is its name in CUDA_VISIBLE_DEVICES, the UUID where it has one.

    `reason` and `detail` say why it is out of service: no job is started on it until a probe finds that it works.
    `since`, by the worker's clock, is when it came into service or went out of it. `name` and `memory_bytes` are null
    until it has worked once.
    """

    device: str
    name: str | None
    memory_bytes: int | None
    status: Literal["in_service", "out_of_service"]
    reason: str | None
    detail: str | None
    since: str


class Worker(BaseModel):
    """A worker. `lost`: it has sent no report for longer than a lease. `jobs` are those of yours that it runs.

    `slots` counts those that are in service.
    """

    id: str
    object: Literal["worker"]
    status: Literal["live", "lost"]
    host: str
    pid: int
    release: str
    slots: dict[str, SlotCount]
    devices: list[Gpu]
    jobs: list[str]
    started_at: str
    seen_at: str


class Workers(BaseModel):
    """All workers with a report in the last minutes, without those that have shut down."""

    object: Literal["list"]
    data: list[Worker]
    has_more: Literal[False]
    last_id: str | None


class Why(BaseModel):
    """Why a job is queued; `code` is stable."""

    code: Literal[
        "no_worker", "no_slot", "no_plugin", "owner_limit", "slots_busy", "others_first", "starting", "not_wanted"
    ]
    message: str


class WaitingJob(BaseModel):
    """A queued job. `eta_seconds` is the estimated time until it starts, from the lengths of recent runs."""

    id: str
    name: str | None
    priority: int
    needs: Literal["cpu", "gpu", "any", "light"]
    position: int
    ahead: int
    reason: Why
    eta_seconds: float | None
    created_at: str


class Queue(BaseModel):
    """Your queued jobs in the order of service. `slots` are those of all workers.

    Positions count the jobs of all projects that need the same slots.
    """

    object: Literal["queue"]
    waiting: int
    slots: dict[str, SlotCount]
    data: list[WaitingJob]


class QueueQuery(StrictQuery):
    """How many jobs to list."""

    limit: Annotated[int, Field(ge=1, le=100)] = 100


@router.get("/workers", operation_id="list_workers", response_model=Workers, responses=problem_responses())
def list_workers(caller: Caller, service: Running) -> JsonResponse:
    """The workers, their slots and GPUs, and which of your jobs they run."""
    lost_after = service.settings.lease_seconds
    return JsonResponse(
        page_envelope([_worker_document(view, lost_after) for view in list_worker_views(service.db, caller.project)])
    )


@router.get("/queue", operation_id="get_queue", response_model=Queue, responses=problem_responses(422))
def get_queue(query: Annotated[QueueQuery, InQuery()], caller: Caller, service: Running) -> JsonResponse:
    """The queued jobs, and why each waits."""
    live = live_workers(list_worker_views(service.db, caller.project), service.settings.lease_seconds)
    slots = total_slots(live)
    waiting, total = list_queued_jobs(service.db, caller.project, slots, query.limit, live)
    data = [_waiting_document(one) for one in waiting]
    return JsonResponse({"object": "queue", "waiting": total, "slots": _slots_document(slots), "data": data})


def _slots_document(slots: dict[str, SlotUsage]) -> dict[str, object]:
    return {kind: {"slots": tally.slots, "free": tally.free} for kind, tally in slots.items()}


def _worker_document(view: WorkerView, lost_after: float) -> dict[str, object]:
    return {
        "id": view.id,
        "object": "worker",
        "status": "live" if is_live(view, lost_after) else "lost",
        "host": view.host,
        "pid": view.pid,
        "release": view.release,
        "slots": _slots_document(view.slots),
        "devices": [_gpu_document(state) for state in view.states if state.kind == "gpu"],
        "jobs": list(view.jobs),
        "started_at": format_timestamp(view.started_at),
        "seen_at": format_timestamp(view.seen_at),
    }


def _gpu_document(state: SlotState) -> dict[str, object]:
    return {
        "device": state.device,
        "name": state.name,
        "memory_bytes": state.memory_bytes,
        "status": "in_service" if state.in_service else "out_of_service",
        "reason": state.reason,
        "detail": state.detail,
        "since": format_timestamp(state.since),
    }


def _waiting_document(one: QueuedJob) -> dict[str, object]:
    return {
        "id": one.job_id,
        "name": one.name,
        "priority": one.priority,
        "needs": one.needs,
        "position": one.ahead + 1,
        "ahead": one.ahead,
        "reason": {"code": one.reason.code, "message": one.reason.message},
        "eta_seconds": one.eta_seconds,
        "created_at": format_timestamp(one.created_at),
    }
