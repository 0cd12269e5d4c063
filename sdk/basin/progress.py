"""Watching a job from a terminal: a bar that moves where the terminal can, plain lines everywhere else."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from basin import terminal_output
from basin.client import Client
from basin.errors import BasinError
from basin.shapes import Event, Job

FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0  # seconds between lines of progress in a log file: a long job says less
RETRY_SECONDS = 10.0  # for a stream that broke; then the job is polled
SAID = ("log", "warning")
KEPT = ("status", "checkpoint", "log", "warning")  # all that stand in a job's list of events
Show = Callable[[Job], None]


@contextmanager
def progress_lines(*, stderr: bool) -> Iterator[Show]:
    """A line whenever the status changes, and now and then one about progress."""
    status, quiet_until, pause = "", 0.0, FIRST_PAUSE

    def print_line(job: Job) -> None:
        nonlocal status, quiet_until, pause
        told = terminal_output.progress_facts(job.progress) if job.status == "running" else []
        if job.status == status and (not told or time.monotonic() < quiet_until):
            return
        pause = FIRST_PAUSE if job.status != status else min(2 * pause, LAST_PAUSE)
        status, quiet_until = job.status, time.monotonic() + pause
        terminal_output.print_lines("  ".join([job.id, status_line(job), *told]), stderr=stderr)

    yield print_line


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """One line that is drawn over: a bar, filled to a fraction, with words behind it."""
    columns = (BarColumn(16), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=terminal_output.make_console()) as bars:
        task = bars.add_task("waiting", total=1.0)
        yield lambda fraction, words: bars.update(task, completed=fraction, description=words)


@contextmanager
def job_progress_bar() -> Iterator[Show]:
    """One line that is drawn over: a bar, the epoch, loss, accuracy, learning rate."""
    with progress_bar() as draw:

        def show(job: Job) -> None:
            told = terminal_output.progress_facts(job.progress)
            words = told if told and job.status in {"running", "succeeded"} else [status_line(job), *told[:1]]
            fraction = 1.0 if job.status == "succeeded" else job.progress.fraction or 0.0
            draw(fraction, terminal_output.strip_controls("  ".join(words)))

        yield show


def status_line(job: Job) -> str:
    """The status in words."""
    if job.status == "queued" and job.queue and job.queue.ahead:
        return f"queued ({job.queue.ahead} ahead)"
    return f"{job.status} ({job.stop_reason})" if job.stop_reason not in {None, "completed"} else job.status


def follow_job(client: Client, job_id: str, *, stderr: bool = False) -> Job:
    """Shows a job until it ended, and returns it. `stderr` keeps stdout free for a result."""
    view: AbstractContextManager[Show] = (
        job_progress_bar() if terminal_output.is_interactive() and not stderr else progress_lines(stderr=stderr)
    )
    job = client.get(job_id)
    with view as show:
        show(job)
        for job in job_changes(client, job):  # noqa: B020 - the newest one is what is left at the end
            show(job)
    return job


def job_changes(client: Client, job: Job) -> Iterator[Job]:
    """The job whenever it changed, until it ended: from its events, and by polling where these cannot be had."""
    if job.finished:
        return
    try:
        yield from stream_changes(client, job)
        yield client.get(job.id)
    except BasinError:  # no stream, or it broke for good; whether the service is gone, the polling will find out
        yield from client.changes(job.id)


def stream_changes(client: Client, job: Job) -> Iterator[Job]:
    """The job as its events change it. The stream begins with the past: what `job` knows of it is passed over."""
    known = len(job.raw().get("timeline") or ())
    for event in client.events(job.id, types=("status", "progress"), patience=RETRY_SECONDS):
        if event.type == "status":
            known -= 1
            if known >= 0:
                continue
            told = {"status": str(event.data.get("status")), "status_detail": event.data.get("detail"), "queue": None}
            job = job.model_copy(update=told)
            if job.finished:
                return
        else:
            job = job.model_copy(update={"progress": job.progress.read(job.progress.raw() | event.data)})
        yield job


def log_entries(client: Client, job_id: str, types: Sequence[str] = SAID) -> Iterator[Event]:
    """What the job says, or what else happens to it, until it ended: live, and by polling where that cannot be had."""
    last: str | None = None
    try:
        for event in client.events(job_id, types=types, patience=RETRY_SECONDS):
            last = event.cursor
            yield event
    except BasinError:
        for _ in client.changes(job_id):
            for event in client.past_events(job_id, types=types, after=last):
                last = event.cursor
                yield event
