"""Reading a job or an analysis, at once or when it changes (`Prefer: wait`), with an estimate of its end."""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from api.auth import is_still_authorized
from api.dependencies import Service
from api.json_documents import JsonResponse
from api.live_poller import parse_prefer_wait
from api.ranges import matches_etag
from core.errors import Unauthenticated
from core.jobs.attempt.state import Fits
from core.jobs.queries import JobView, get_job_view, is_over, job_version
from core.jobs.queue.estimates import QueueForecast, forecast_queue
from core.jobs.queue.rank import no_slot


@dataclass(frozen=True, slots=True)
class ConditionalGet:
    """A GET of a job or an analysis, with its conditions."""

    service: Service
    project: str
    job_id: str
    if_none_match: str | None
    prefer: str | None


async def answer_when_changed(
    request: Request, get: ConditionalGet, answer: Callable[[Service, JobView, int], JsonResponse]
) -> Response:
    """The response: at once, or with `Prefer: wait` when the job changes."""
    seconds, waited = parse_prefer_wait(get.prefer), False
    if seconds is not None:
        view = await run_in_threadpool(get_job_view, get.service.db, get.project, get.job_id)
        known = get.if_none_match is None or matches_etag(get.if_none_match, format_etag(view.version))
        change = get.service.live.wait_for_change
        waited = is_over(view) or not known or await change(get.project, get.job_id, view.version, seconds)
        if not await is_still_authorized(request):
            raise Unauthenticated
    found = await run_in_threadpool(_answer_once, get, answer)
    if waited:
        found.headers["Preference-Applied"] = f"wait={seconds}"
    return found


def _answer_once(get: ConditionalGet, answer: Callable[[Service, JobView, int], JsonResponse]) -> Response:
    if get.if_none_match is not None:
        tag = format_etag(job_version(get.service.db, get.project, get.job_id))
        if matches_etag(get.if_none_match, tag):
            return Response(status_code=304, headers={"ETag": tag})
    return answer(get.service, get_job_view(get.service.db, get.project, get.job_id), 200)


def format_etag(version: int) -> str:
    return f'W/"{version}"'


async def _match_condition(
    if_match: Annotated[str | None, Header(description="change it only while it has this ETag; 412 otherwise")] = None,
) -> Fits | None:
    return None if if_match is None else lambda version: matches_etag(if_match, format_etag(version))


IfMatch = Annotated[Fits | None, Depends(_match_condition)]
"""The condition of every route that changes something; such a route lists 412 in its `responses`."""


def forecast_for(service: Service, views: Sequence[JobView]) -> QueueForecast | None:
    """The forecast for the queued jobs among these jobs of one project; None, without a query, when none is queued."""
    waiting = [view for view in views if view.queue]
    return forecast_queue(service.db, waiting[0].project, service.settings.lease_seconds) if waiting else None


def queue_position(view: JobView, expected: QueueForecast | None) -> dict[str, Any] | None:
    if view.queue is None or expected is None:
        return None
    ahead = view.queue.ahead
    _, starts = expected.forecast_start(
        view.needs, ahead, desired=view.desired, most=view.most_running, plugins=view.plugins
    )
    return {"position": view.queue.position, "ahead": ahead, "eta_seconds": starts}


def slot_warning(needs: str, kinds: Collection[str]) -> list[dict[str, str]]:
    """A warning, in the form of the spec's warnings, when `needs` fits none of the fleet's kinds of slot."""
    missing = no_slot(needs, kinds)
    return [{"code": "no_slot", "pointer": "/resources/device", "message": missing}] if missing else []


def plugin_warning(missing: str | None) -> list[dict[str, str]]:
    """A warning where workers are there and none has the plug-ins."""
    return [{"code": "no_plugin", "pointer": "", "message": missing}] if missing else []


def estimate_end(view: JobView, queue: dict[str, Any] | None, expected: QueueForecast | None) -> float | None:
    """Estimated seconds until the job ends: the rest of the run at the rate of its attempt, else at its mean rate over
    all attempts, without the time in the queue. Before its first progress: the usual length of a run, plus the
    estimated wait. None when there is no basis for an estimate.
    """
    done = float(view.progress.get("fraction", 0.0))
    own = done - _inherited_fraction(view)
    whole = view.whole_run or (_run_seconds(view) / own if own > 0 else None)
    left = (1 - done) * whole if whole is not None else None
    if queue and expected:
        starts, left = queue["eta_seconds"], expected.usual if left is None else left
        return None if starts is None or left is None else round(starts + left, 1)
    return round(left, 1) if view.status == "running" and left is not None else None


def _inherited_fraction(view: JobView) -> float:
    """The share of the run that the job took over from its parent."""
    steps = view.progress.get("steps")
    return (view.parent_step or 0) / steps if steps and view.parent_verb in {"retry", "fork"} else 0.0


def _run_seconds(view: JobView) -> float:
    """Seconds that the job has run, in all of its attempts."""
    running, began = 0.0, None
    for moment in view.timeline:
        if began is not None:
            running += moment.at - began
        began = moment.at if moment.status in {"running", "pausing", "cancelling"} else None
    return running + (max(0.0, time.time() - began) if began is not None else 0.0)
