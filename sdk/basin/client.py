"""The Python client: a method per operation of the HTTP API, with typed answers."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from os import environ
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx2

from basin.answers import parse_answer, validate_body
from basin.datasets import DatasetClient
from basin.download import download_file
from basin.errors import BadAnswer, BasinError, Unreachable
from basin.events import stream
from basin.shapes import Analyses, Analysis, Checkpoint, Event, Job, Page, Project, Queued, Series, Worker
from basin.transport import Transport, parse_object

DEFAULT_URL = "http://127.0.0.1:8000"
POLL = 0.2  # seconds between requests for a job
PATIENCE = 60.0  # seconds of silence after which a service counts as gone
HOLD = 20  # seconds that the service is asked to hold a request for a job until the job changes
ORIGIN = frozenset({"job", "weights", "checkpoint", "checkpoints"})  # the fields that name the weights of an analysis


class Client:
    """A client of one Basin service. Thread-safe; use it as a context manager, or call `close`.

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
        self.data = DatasetClient(self._transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections."""
        self._transport.http.close()

    def alive(self) -> bool:
        """Whether a service answers at the URL. Its database and workers are not checked."""
        return parse_object(self._transport.get("/healthz")).get("status") == "alive"

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Posts a job. It carries an idempotency key, so that a retry after a lost answer creates no second job."""
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return parse_answer(Job, self._transport.post("/v1/jobs", body=dict(spec), headers=headers))

    def check(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """Checks a spec without storing it: the spec with its defaults, `total_steps` and `warnings`."""
        answer = self._transport.post("/v1/jobs", params={"dry_run": "true"}, body=dict(spec))
        return parse_object(answer)

    def get(self, job_id: str) -> Job:
        """One job in its current state."""
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
        """Jobs, newest first: `for job in client.list()` iterates over all of them, page by page.

        With a `limit` there are at most that many, and `page.last_id` is the next call's `after`. `q` is a text in name
        or id.
        """

        def page_after(last: str) -> Page:
            return self.list(status=status, metadata=metadata, q=q, after=last, order=order)

        params: dict[str, Any] = {"status": status, "q": q, "after": after, "limit": limit, "order": order}
        params |= {f"metadata[{key}]": value for key, value in (metadata or {}).items()}
        page = parse_answer(Page, self._transport.get("/v1/jobs", params=params))
        return page.continued(page_after) if limit is None else page

    def cancel(self, job_id: str) -> Job:
        """Requests a cancellation. Idempotent; a job that ended otherwise raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "cancel")))

    def pause(self, job_id: str) -> Job:
        """Requests a checkpoint and a pause. Idempotent; a job that ended raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "pause")))

    def resume(self, job_id: str) -> Job:
        """Resumes a paused job from its checkpoint. Idempotent; a job that ended raises Problem (409)."""
        return parse_answer(Job, self._transport.post(job_path(job_id, "resume")))

    def retry(self, job_id: str, *, again: bool = False, idempotency_key: str | None = None) -> Job:
        """Retries a failed or cancelled job: a new job that starts from its last checkpoint.

        A second retry raises Problem (409), unless `again` is true.
        """
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
        """A new job with the same history up to the checkpoint `at`, and changed fields after it.

        `at` is a step or a checkpoint's id; the default is the newest checkpoint.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        body = {"at": at, "changes": dict(changes)}
        return parse_answer(Job, self._transport.post(job_path(job_id, "fork"), body=body, headers=headers))

    def edit(self, job_id: str, changes: Mapping[str, Any], *, if_match: str | None = None) -> Job:
        """Changes name, priority or metadata (None removes a pair). `if_match` is an ETag: Problem (412) when stale."""
        headers = {"If-Match": if_match} if if_match else None
        return parse_answer(Job, self._transport.patch(job_path(job_id), body=dict(changes), headers=headers))

    def delete(self, job_id: str) -> None:
        """Deletes a job that has ended, with its metrics and weights. Problem (409) while it has not ended."""
        self._transport.delete(job_path(job_id))

    def workers(self) -> tuple[Worker, ...]:
        """The workers of the service."""
        body = parse_object(self._transport.get("/v1/workers"))
        return tuple(validate_body(Worker, one) for one in body.get("data") or ())

    def queue(self) -> Queued:
        """Your queued jobs in the order in which they start, each with the reason why it waits."""
        return parse_answer(Queued, self._transport.get("/v1/queue"))

    def projects(self) -> tuple[Project, ...]:
        """The projects that the key may see: its own, or all of them for an administrator of `default`."""
        body = parse_object(self._transport.get("/v1/projects"))
        return tuple(validate_body(Project, one) for one in body.get("data") or ())

    def create_project(self, name: str) -> Project:
        """Creates a project, as an administrator of `default`. Problem (409) where the name is taken."""
        return parse_answer(Project, self._transport.post("/v1/projects", body={"name": name}))

    def metrics(
        self, job_id: str, series: Sequence[str] | None = None, *, max_points: int | None = None
    ) -> dict[str, Series]:
        """Measured series by name, each downsampled to at most `max_points`; its extremes are kept."""
        params = {"series": ",".join(series) if series else None, "max_points": max_points}
        body = parse_object(self._transport.get(job_path(job_id, "metrics"), params=params))
        found = body.get("series")
        if not isinstance(found, dict):
            raise BadAnswer(f"the answer with the metrics of {job_id} has no 'series'; is this Basin?")
        return {name: validate_body(Series, one) for name, one in found.items()}

    def events(
        self, job_id: str, *, types: Sequence[str] | None = None, after: str | None = None, patience: float = PATIENCE
    ) -> Iterator[Event]:
        """The job's events as they happen, from the first or after the cursor `after`, until the job has ended.

        Each event comes once. A broken connection is retried for `patience` seconds; then Unreachable is raised.
        """
        return stream(self._transport, job_path(job_id, "events"), types=types, after=after, patience=patience)

    def past_events(
        self, job_id: str, *, types: Sequence[str] | None = None, after: str | None = None
    ) -> Iterator[Event]:
        """The stored events up to now, page by page. Progress and metrics are not stored."""
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
        for the trajectory of a point, which has no series.
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
        """Requests an analysis: {"kind": "landscape", "job": "job_…", …}.

        Methods that take a job's id accept an analysis' id too.
        """
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return parse_answer(Analysis, self._transport.post("/v1/analyses", body=dict(request), headers=headers))

    def share(self, request: Mapping[str, Any], parts: int) -> tuple[Analysis, ...]:
        """Requests a landscape in `parts` parts, which several workers can compute at the same time.

        All parts use the checkpoints of the first one, even while the job continues training. When all have
        succeeded, request {"kind": "assembly", "analyses": [ids]}. When the service refuses a part, the parts before
        it are cancelled and the error is raised.
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
        """Analyses, newest first, optionally of one job. Iterates page by page, as `list` does."""

        def page_after(last: str) -> Analyses:
            return self.analyses(job=job, status=status, after=last)

        params = {"job": job, "status": status, "after": after, "limit": limit}
        page = parse_answer(Analyses, self._transport.get("/v1/analyses", params=params))
        return page.continued(page_after) if limit is None else page

    def save(self, analysis: Analysis, folder: Path | str) -> tuple[Path, ...]:
        """Writes an analysis' pictures and arrays (result.npz) into a folder; returns their paths."""
        paths = {"result.npz": job_path(analysis.id, "content"), **analysis.pictures}
        return tuple(
            download_file(self._transport, path, Path(folder, Path(name).name), sha256=None)
            for name, path in paths.items()
        )

    def split(self, job_id: str) -> dict[str, tuple[int, ...]]:
        """The rows of the dataset in each split: train, validation, test. Problem (409) where they are not recorded."""
        body = parse_object(self._transport.get(job_path(job_id, "split")))
        return {part: tuple(body.get(part) or ()) for part in ("train", "validation", "test")}

    def checkpoints(self, job_id: str) -> tuple[Checkpoint, ...]:
        """The job's checkpoints, in the service's order."""
        body = parse_object(self._transport.get(job_path(job_id, "checkpoints")))
        return tuple(validate_body(Checkpoint, one) for one in body.get("data") or ())

    def checkpoint(self, checkpoint_id: str) -> Checkpoint:
        """One checkpoint."""
        return parse_answer(Checkpoint, self._transport.get(checkpoint_path(checkpoint_id)))

    def pin(self, checkpoint_id: str) -> Checkpoint:
        """Pins a checkpoint: retention does not delete it. Idempotent; Problem (409) when its deletion has begun."""
        return parse_answer(Checkpoint, self._transport.post(checkpoint_path(checkpoint_id, "pin")))

    def unpin(self, checkpoint_id: str) -> None:
        """Removes the pin. A checkpoint that retention does not keep is then deleted. Idempotent."""
        self._transport.delete(checkpoint_path(checkpoint_id, "pin"))

    def download(self, checkpoint: Checkpoint | str, path: Path | str) -> Path:
        """Writes a checkpoint's safetensors to `path`, whole or not at all; raises DigestMismatch on wrong bytes."""
        known = self.checkpoint(checkpoint) if isinstance(checkpoint, str) else checkpoint
        return download_file(self._transport, checkpoint_path(known.id, "content"), Path(path), sha256=known.sha256)

    def catalog(self, kind: str | None = None) -> dict[str, Any]:
        """The components of a recipe: names, summaries, papers, JSON schemas, defaults."""
        return parse_object(self._transport.get(f"/v1/catalog/{quote(kind, safe='')}" if kind else "/v1/catalog"))

    def preview(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The learning rate of every step of a run, computed by the same code as in training."""
        return parse_object(self._transport.post("/v1/schedules/preview", body=dict(request)))

    def changes(self, job_id: str, *, poll: float = POLL, patience: float = PATIENCE) -> Iterator[Job]:
        """The job now and after every change, until it ended. Raises Unreachable after `patience` s without answer."""
        yield from (job for job in self._poll_job(job_id, poll, patience) if job is not None)

    def wait(self, job_id: str, *, timeout: float | None = None, poll: float = POLL, patience: float = PATIENCE) -> Job:
        """Blocks until the job ended, and returns it. Raises TimeoutError after `timeout` s; the job continues."""
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
        """The job at each request, until it ended; None when it did not change or no service answered.

        The service is asked to hold the request until the job changes. One that does not support this is polled.
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
    """The request's fields for the checkpoints that an analysis uses."""
    starts = [{"checkpoint": one["checkpoint"]} for one in analysis.subjects]
    return starts[0] if len(starts) == 1 else {"checkpoints": starts}


def job_path(job_id: str, *rest: str) -> str:
    """The path of a job or an analysis; the id is quoted, so that '../x' reaches no other path."""
    noun = "/v1/analyses" if job_id.startswith("an_") else "/v1/jobs"
    return "/".join([noun, quote(job_id, safe=""), *rest])


def checkpoint_path(checkpoint_id: str, *rest: str) -> str:
    """The path of a checkpoint; the id is quoted."""
    return "/".join(["/v1/checkpoints", quote(checkpoint_id, safe=""), *rest])
