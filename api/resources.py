"""What the routes of all kinds of job share: create, show, cancel, pause, resume, delete.

Each kind has its own router; the router's functions declare the id and the response model and call these.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel

from api.auth import Principal
from api.dependencies import Service
from api.job_query import Status
from api.json_documents import JsonResponse, format_timestamp
from api.long_poll import format_etag
from core.db.session import Database
from core.errors import Conflict, NotFound
from core.jobs.attempt.state import Fits
from core.jobs.changes import mark_job_deleted
from core.jobs.kinds import JobKind
from core.jobs.queries import JobView, get_job_view
from core.jobs.queue.submit import Idempotency, SubmitContext, SubmitResult

Verb = Callable[[Database, str, str, Fits | None], None]
"""`cancel`, `pause` or `resume` of core.jobs.verbs."""


class Place(BaseModel):
    """The place in the queue among jobs that need the same slots: `ahead` jobs are served before; `position` is from 1.

    `eta_seconds` is the estimated time until the start.
    """

    position: int
    ahead: int
    eta_seconds: float | None


class Moment(BaseModel):
    """The job has had `status` since `at`."""

    status: Status
    at: str
    detail: str | None


class Failure(BaseModel):
    """Why the job failed, and the remedy."""

    code: str
    message: str
    remedy: str | None = None


class SharedFields(BaseModel):
    """The fields of a job of any kind; see shared_fields."""

    id: str
    project: str
    status: Status
    status_detail: str | None
    attempt: int
    queue: Place | None
    timeline: list[Moment]
    error: Failure | None
    resume: dict[str, Any] | None
    environment: dict[str, Any] | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    links: dict[str, str]


def shared_fields(
    kind: JobKind[Any], view: JobView, queue: dict[str, Any] | None, links: Mapping[str, str]
) -> dict[str, Any]:
    """The values of SharedFields, with `object` and `stop_reason`; `links` are names -> paths below its own path."""
    own = path_of(kind, view.id)
    return {
        "id": view.id,
        "object": kind.noun,
        "project": view.project,
        "status": view.status,
        "status_detail": view.status_detail,
        "attempt": view.attempt,
        "queue": queue,
        "timeline": [{"status": m.status, "at": format_timestamp(m.at), "detail": m.detail} for m in view.timeline],
        "stop_reason": view.stop_reason,
        "error": view.error,
        "resume": view.resume,
        "environment": view.environment,
        "created_at": format_timestamp(view.created_at),
        "started_at": format_timestamp(view.started_at),
        "finished_at": format_timestamp(view.finished_at),
        "links": {"self": own, **{name: f"{own}/{path}" for name, path in links.items()}},
    }


def path_of(kind: JobKind[Any], job_id: str) -> str:
    return f"/v1/{kind.collection}/{job_id}"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind of job in the API: its record, and the function that makes the document of a job."""

    kind: JobKind[Any]
    shown: Callable[[Service, JobView], dict[str, Any]]

    def answer(self, service: Service, view: JobView, status: int) -> JsonResponse:
        """The response with the whole job document; `status` is the HTTP status."""
        return JsonResponse(self.shown(service, view), status, {"ETag": format_etag(view.version)})

    def answer_created(self, service: Service, project: str, done: SubmitResult) -> JsonResponse:
        """The response to a POST: the new job, or the job that this Idempotency-Key made before."""
        if done.created:
            service.hints.send(done.needs)
        try:
            view = get_job_view(service.db, project, done.job_id)
        except NotFound:
            raise Conflict(
                f"The {self.kind.noun} of this Idempotency-Key was deleted; use a new key for a new one."
            ) from None
        found = self.answer(service, view, 201 if done.created else 200)
        found.headers["Location"] = path_of(self.kind, done.job_id)
        return found

    def carry_out(self, verb: Verb, service: Service, project: str, job_id: str, fits: Fits | None) -> JsonResponse:
        """Store the owner's request to cancel, pause or resume, and answer with the job."""
        verb(service.db, project, job_id, fits)
        view = get_job_view(service.db, project, job_id)
        if view.status == "queued":
            service.hints.send(view.needs)
        return self.answer(service, view, 202)


def delete_one(service: Service, project: str, job_id: str, fits: Fits | None) -> Response:
    """Delete a job that has ended, whatever its kind."""
    mark_job_deleted(service.db, project, job_id, fits)
    return Response(status_code=204)


def entry_of(caller: Principal, service: Service) -> SubmitContext:
    """The context in which the caller's new job is submitted."""
    settings = service.settings
    return SubmitContext(caller.owner, caller.limits, settings.age_step_seconds, settings.lease_seconds, caller.project)


def promise_of(key: str | None, document: object) -> Idempotency | None:
    """The Idempotency-Key with the digest of its document; None without a key."""
    return None if key is None else Idempotency(key, digest(document))


def digest(document: object) -> str:
    """A digest of the document that does not depend on white space or the order of keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
