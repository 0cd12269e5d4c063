"""The Python client: a method per deed of the HTTP API, with typed answers."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from os import environ
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from basin.download import download_file
from basin.errors import BadAnswer, BasinError, Unreachable
from basin.events import stream
from basin.shapes import Analyses, Analysis, Checkpoint, Event, Job, Page, Project, Queued, Series, Shape, Worker
from basin.transport import Transport, parse_object

DEFAULT_URL = "http://127.0.0.1:8000"
POLL = 0.2  # seconds between looks at a job
PATIENCE = 60.0  # seconds of silence after which a service counts as gone
HOLD = 20  # seconds that the service is asked to hold a look at a job until there is something new
ORIGIN = frozenset({"job", "weights", "checkpoint", "checkpoints"})  # where an analysis looks
AnyShape = TypeVar("AnyShape", bound=Shape)


class Client:
    """Speaks to one Basin service. Thread-safe; use it as a context manager, or call `close`.

    `url` defaults to BASIN_URL, then to http://127.0.0.1:8000; `key` to BASIN_API_KEY. Raises `Problem` when the
    service refuses, `Unreachable` when nothing answers: both are `BasinError`.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.url = (url or environ.get("BASIN_URL") or DEFAULT_URL).rstrip("/")
        self._timeout = timeout
        self._transport = Transport(self.url, key or environ.get("BASIN_API_KEY"), timeout, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Gives the connections back."""
        self._transport.http.close()

    def alive(self) -> bool:
        """Whether a service answers here; nothing is said about its database or its workers."""
        return parse_object(self._transport.get("/healthz")).get("status") == "alive"

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Posts a job. Safe to repeat: a key is sent along, so that a lost answer never makes a second job."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return parse_answer(Job, self._transport.post("/v1/jobs", body=dict(spec), headers=headers))

    def check(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What the service would make of a spec (defaults filled in, steps, warnings). Stores nothing."""
        answer = self._transport.post("/v1/jobs", params={"dry_run": "true"}, body=dict(spec))
        return parse_object(answer)

    def get(self, job_id: str) -> Job:
        """One job as it stands now."""
        return parse_answer(Job, self._transport.get(job_path(job_id)))

    def list(  # noqa: PLR0913 - one argument for each parameter of the query
        self,
        *,
        status: str | Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        q: str | None = None,
        after: str | None = None,
        limit: int | None = None,
        order: str | None = None,
    ) -> Page:
        """Jobs, newest first: `for job in client.list()` goes through all of them, page by page.

        With a `limit` there are so many at most, and `page.last_id` is the next call's `after`. `q` is a text in name
        or id.
        """

        def page_after(last: str) -> Page:
            return self.list(status=status, metadata=metadata, q=q, after=last, order=order)

        params: dict[str, Any] = {"status": status, "q": q, "after": after, "limit": limit, "order": order}
        params |= {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        page = parse_answer(Page, self._transport.get("/v1/jobs", params=params))
        return page.continued(page_after) if limit is None else page

    def cancel(self, job_id: str) -> Job:
        """Asks for the job to be cancelled. Twice is the same; a job that ended otherwise raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "cancel")))

    def pause(self, job_id: str) -> Job:
        """Asks for a checkpoint and a pause. Twice is the same; a job that ended raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "pause")))

    def resume(self, job_id: str) -> Job:
        """Lets a paused job go on from there. Twice is the same; a job that ended raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "resume")))

    def retry(self, job_id: str, *, again: bool = False, idempotency_key: str | None = None) -> Job:
        """A new job as one that failed or was cancelled, from its last checkpoint; Problem (409) the second time."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return parse_answer(
            Job, self._transport.post(job_path(job_id, "retry"), body={"again": again}, headers=headers)
        )

    def fork(
        self,
        job_id: str,
        changes: Mapping[str, Any],
        *,
        at: int | str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """A new job with the same past up to a checkpoint (its step or id; else the newest) and some fields changed."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"at": at, "changes": dict(changes)}
        return parse_answer(Job, self._transport.post(job_path(job_id, "fork"), body=body, headers=headers))

    def edit(self, job_id: str, changes: Mapping[str, Any], *, if_match: str | None = None) -> Job:
        """Changes name, priority or metadata (None removes a pair). `if_match` is an ETag: Problem (412) when stale."""
        headers = {"If-Match": if_match} if if_match else None
        return parse_answer(Job, self._transport.patch(job_path(job_id), body=dict(changes), headers=headers))

    def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, with everything that belongs to it; Problem (409) while it goes on."""
        self._transport.delete(job_path(job_id))

    def workers(self) -> tuple[Worker, ...]:
        """The fleet."""
        body = parse_object(self._transport.get("/v1/workers"))
        return tuple(validate_body(Worker, one) for one in body.get("data") or ())

    def queue(self) -> Queued:
        """Your queued jobs in the order of service, each with the reason why it waits."""
        return parse_answer(Queued, self._transport.get("/v1/queue"))

    def projects(self) -> tuple[Project, ...]:
        """The projects that the key may see: its own, or all of them for an administrator of `default`."""
        body = parse_object(self._transport.get("/v1/projects"))
        return tuple(validate_body(Project, one) for one in body.get("data") or ())

    def create_project(self, name: str) -> Project:
        """Makes a project, as an administrator of `default`. Problem (409) where the name is taken."""
        return parse_answer(Project, self._transport.post("/v1/projects", body={"name": name}))

    def metrics(
        self, job_id: str, series: Sequence[str] | None = None, *, max_points: int | None = None
    ) -> dict[str, Series]:
        """Measured series by name, thinned to at most `max_points` each with their extremes kept."""
        params = {"series": ",".join(series) if series else None, "max_points": max_points}
        body = parse_object(self._transport.get(job_path(job_id, "metrics"), params=params))
        found = body.get("series")
        if not isinstance(found, dict):
            raise BadAnswer(f"the metrics of {job_id} came without series")
        return {name: validate_body(Series, one) for name, one in found.items()}

    def events(
        self, job_id: str, *, types: Sequence[str] | None = None, after: str | None = None, patience: float = PATIENCE
    ) -> Iterator[Event]:
        """What happens to the job as it happens, from its beginning or behind the cursor `after`, until it has ended.

        Each event comes once, whatever happens to the connection: it is taken up again for `patience` seconds.
        """
        return stream(self._transport, job_path(job_id, "events"), types=types, after=after, patience=patience)

    def past_events(
        self, job_id: str, *, types: Sequence[str] | None = None, after: str | None = None
    ) -> Iterator[Event]:
        """What has happened so far, page by page; progress and metrics are not among it."""
        params = {"types": ",".join(types) if types else None, "limit": 1000}
        while True:
            body = parse_object(self._transport.get(job_path(job_id, "events"), params=params | {"after": after}))
            for one in body.get("data") or ():
                yield validate_body(Event, one | {"cursor": one.get("id") or ""})
            if not body.get("has_more"):
                return
            after = body.get("last_id")

    def plot(self, job_ids: str | Sequence[str], series: Sequence[str] | None = None, **look: Any) -> str:
        """Curves as an SVG picture: of one job, or of several in one (then `series` is needed).

        `look`: x ("step", "epoch", "seconds"), y ("auto", "linear", "log"), width, height, theme, mean; or kind="path"
        for the way of a point, which has no series.
        """
        jobs = [job_ids] if isinstance(job_ids, str) else list(job_ids)
        params = {**look, "series": ",".join(series) if series else None}
        if len(jobs) > 1:
            params["jobs"] = ",".join(jobs)
        path = job_path(jobs[0], "plot.svg") if len(jobs) == 1 else "/v1/metrics/plot.svg"
        answer = self._transport.get(path, params=params, headers={"Accept": "image/svg+xml, application/problem+json"})
        if not answer.headers.get("Content-Type", "").startswith("image/svg+xml"):
            raise BadAnswer(f"{path} answered with something other than a picture")
        return answer.text

    def analyze(self, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> Analysis:
        """Asks for an analysis: {"kind": "landscape", "job": "job_…", …}. Its id works wherever a job's does, too."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return parse_answer(Analysis, self._transport.post("/v1/analyses", body=dict(request), headers=headers))

    def share(self, request: Mapping[str, Any], parts: int) -> tuple[Analysis, ...]:
        """Asks for a landscape in so many parts, which several workers can compute at a time.

        All look at what the first one looks at, also while the job trains on. When they have succeeded, ask for
        {"kind": "assembly", "analyses": [ids]}. Where one of them is refused, those before it are cancelled.
        """
        asked: list[Analysis] = []
        where: Mapping[str, Any] = request
        try:
            for number in range(1, parts + 1):
                asked.append(self.analyze({**where, "part": {"number": number, "of": parts}}))
                where = {name: each for name, each in request.items() if name not in ORIGIN} | checkpoints_of_analysis(
                    asked[0]
                )
        except BasinError:
            for one in asked:
                with suppress(BasinError):
                    self.cancel(one.id)
            raise
        return tuple(asked)

    def analysis(self, analysis_id: str) -> Analysis:
        """One analysis with its numbers."""
        return parse_answer(Analysis, self._transport.get(job_path(analysis_id)))

    def analyses(
        self, *, job: str | None = None, status: str | None = None, after: str | None = None, limit: int | None = None
    ) -> Analyses:
        """Analyses, newest first, of one job if asked; to be gone through as the jobs of `list`."""

        def page_after(last: str) -> Analyses:
            return self.analyses(job=job, status=status, after=last)

        params = {"job": job, "status": status, "after": after, "limit": limit}
        page = parse_answer(Analyses, self._transport.get("/v1/analyses", params=params))
        return page.continued(page_after) if limit is None else page

    def save(self, analysis: Analysis, folder: Path | str) -> tuple[Path, ...]:
        """Writes its pictures and its arrays (result.npz) into a folder."""
        paths = {"result.npz": job_path(analysis.id, "content"), **analysis.pictures}
        return tuple(
            download_file(self._transport, path, Path(folder, Path(name).name), sha256=None)
            for name, path in paths.items()
        )

    def checkpoints(self, job_id: str) -> tuple[Checkpoint, ...]:
        """The job's checkpoints, in the service's order."""
        body = parse_object(self._transport.get(job_path(job_id, "checkpoints")))
        return tuple(validate_body(Checkpoint, one) for one in body.get("data") or ())

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """One checkpoint."""
        return parse_answer(Checkpoint, self._transport.get(checkpoint_path(checkpoint_id)))

    def pin(self, checkpoint_id: str) -> Checkpoint:
        """Keeps a checkpoint whatever the job's `checkpoints` say. Twice is the same; Problem (409) when it goes."""
        return parse_answer(Checkpoint, self._transport.post(checkpoint_path(checkpoint_id, "pin")))

    def unpin(self, checkpoint_id: str) -> None:
        """Takes the pin away; what would not have been kept without it is removed soon. Twice is the same."""
        self._transport.delete(checkpoint_path(checkpoint_id, "pin"))

    def download(self, checkpoint: Checkpoint | str, path: Path | str) -> Path:
        """Writes a checkpoint's safetensors to `path`, whole or not at all; raises DigestMismatch on wrong bytes."""
        known = self.checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
        return download_file(self._transport, checkpoint_path(known.id, "content"), Path(path), sha256=known.sha256)

    def catalog(self, kind: str | None = None) -> dict[str, Any]:
        """What can be trained and how: names, summaries, papers, JSON schemas, defaults."""
        return parse_object(self._transport.get(f"/v1/catalog/{quote(kind, safe='')}" if kind else "/v1/catalog"))

    def preview(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The learning rate of every step that a run would take, from the code that trains."""
        return parse_object(self._transport.post("/v1/schedules/preview", body=dict(request)))

    def changes(self, job_id: str, *, poll: float = POLL, patience: float = PATIENCE) -> Iterator[Job]:
        """The job now, and again whenever it changed, until it ended. Lives through `patience` seconds of silence."""
        yield from (job for job in self._poll_job(job_id, poll, patience) if job is not None)

    def wait(self, job_id: str, *, timeout: float | None = None, poll: float = POLL, patience: float = PATIENCE) -> Job:
        """Blocks until the job ended, and returns it. Raises TimeoutError after `timeout` seconds; the job goes on."""
        deadline = None if timeout is None else time.monotonic() + timeout
        status = "not seen"
        for job in self._poll_job(job_id, poll, patience, deadline):
            if job is not None and job.finished:
                return job
            status = job.status if job is not None else status
            if deadline is not None and time.monotonic() > deadline:
                break
        raise TimeoutError(f"{job_id} is still {status} after {timeout} s")

    def _poll_job(
        self, job_id: str, poll: float, patience: float, deadline: float | None = None
    ) -> Iterator[Job | None]:
        """Every look at a job, None when nothing changed or nothing answered, until it ended.

        The service is asked to answer when there is something new; one that does not know how is polled.
        """
        etag, lost_at = "", None
        while True:
            job, held = None, False
            left = HOLD if deadline is None else min(HOLD, int(deadline - time.monotonic()))
            hold = min(left, int(self._timeout / 2))
            headers = {"If-None-Match": etag} | ({"Prefer": f"wait={hold}"} if hold > 0 else {}) if etag else None
            try:
                answer = self._transport.get(job_path(job_id), headers=headers)
            except Unreachable:
                lost_at = lost_at or time.monotonic()
                if time.monotonic() - lost_at > patience:
                    raise
            else:
                lost_at, held = None, "Preference-Applied" in answer.headers
                if answer.status_code != httpx2.codes.NOT_MODIFIED:
                    etag = answer.headers.get("ETag", "")
                    job = parse_answer(Job, answer)
            yield job
            if job is not None and job.finished:
                return
            if not held:
                time.sleep(poll)


def checkpoints_of_analysis(analysis: Analysis) -> dict[str, Any]:
    """The checkpoints that an analysis looks at, as a request says it."""
    starts = [{"checkpoint": one["checkpoint"]} for one in analysis.subjects]
    return starts[0] if len(starts) == 1 else {"checkpoints": starts}


def job_path(job_id: str, *rest: str) -> str:
    """The path of a job or an analysis; the id is quoted, so that a slip like '../x' stays inside."""
    noun = "/v1/analyses" if job_id.startswith("an_") else "/v1/jobs"
    return "/".join([noun, quote(job_id, safe=""), *rest])


def checkpoint_path(checkpoint_id: str, *rest: str) -> str:
    """The path of a checkpoint, quoted as above."""
    return "/".join(["/v1/checkpoints", quote(checkpoint_id, safe=""), *rest])


def parse_answer(shape: type[AnyShape], answer: httpx2.Response) -> AnyShape:
    """The answer's JSON as one of our shapes."""
    return validate_body(shape, parse_object(answer))


def validate_body(shape: type[AnyShape], body: Any) -> AnyShape:
    """A JSON value as one of our shapes; BadAnswer when it does not fit."""
    try:
        return shape.read(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadAnswer(f"unexpected {shape.__name__.lower()}: {where}: {first['msg']}; is this Basin?") from error
