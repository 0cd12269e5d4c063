"""Follows a job in a terminal: a progress bar where the terminal can redraw a line, plain lines elsewhere."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from basin import terminal_output
from basin.client import Client
from basin.errors import BasinError
from basin.shapes import Event, Job

FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0  # seconds between lines of progress: a long job prints fewer
RETRY_SECONDS = 10.0  # for a broken stream; after that the job is polled
SAID = ("log", "warning")
KEPT = ("status", "checkpoint", "log", "warning")  # all types in a job's list of events
Show = Callable[[Job], None]


@contextmanager
def progress_lines(*, stderr: bool) -> Iterator[Show]:
    """Prints a line when the status changes, and lines about progress at growing intervals."""
    status, quiet_until, pause = "", 0.0, FIRST_PAUSE

    def print_line(job: Job) -> None:
        nonlocal status, quiet_until, pause
        facts = terminal_output.progress_facts(job.progress) if job.status == "running" else []
        if job.status == status and (not facts or time.monotonic() < quiet_until):
            return
        pause = FIRST_PAUSE if job.status != status else min(2 * pause, LAST_PAUSE)
        status, quiet_until = job.status, time.monotonic() + pause
        terminal_output.print_lines("  ".join([job.id, status_line(job), *facts]), stderr=stderr)

    yield print_line


@contextmanager
def progress_bar() -> Iterator[Callable[[float, str], None]]:
    """A bar that is redrawn in place. Yields the function that sets its fraction and its text."""
    columns = (BarColumn(16), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=terminal_output.make_console()) as bars:
        task = bars.add_task("waiting", total=1.0)
        yield lambda fraction, words: bars.update(task, completed=fraction, description=words)


@contextmanager
def job_progress_bar() -> Iterator[Show]:
    """A bar for a job, with its epoch, loss, a quality metric and learning rate."""
    with progress_bar() as draw:

        def show(job: Job) -> None:
            facts = terminal_output.progress_facts(job.progress)
            words = facts if facts and job.status in {"running", "succeeded"} else [status_line(job), *facts[:1]]
            fraction = 1.0 if job.status == "succeeded" else job.progress.fraction or 0.0
            draw(fraction, terminal_output.strip_controls("  ".join(words)))

        yield show


def status_line(job: Job) -> str:
    """The status, with the number of jobs ahead in the queue or the reason of the stop."""
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
        for job in job_changes(client, job):  # noqa: B020 - the newest one is returned
            show(job)
    return job


def job_changes(client: Client, job: Job) -> Iterator[Job]:
    """The job after every change, until it ended: from its event stream, or by polling when the stream fails."""
    if job.finished:
        return
    try:
        yield from stream_changes(client, job)
        yield client.get(job.id)
    except BasinError:  # no stream, or it stayed broken; polling raises if the service is gone
        yield from client.changes(job.id)


def stream_changes(client: Client, job: Job) -> Iterator[Job]:
    """The job as its events change it. The stream begins with past events: those in `job`'s timeline are skipped."""
    known = len(job.raw().get("timeline") or ())
    for event in client.events(job.id, types=("status", "progress"), patience=RETRY_SECONDS):
        if event.type == "status":
            known -= 1
            if known >= 0:
                continue
            changed = {
                "status": str(event.data.get("status")),
                "status_detail": event.data.get("detail"),
                "queue": None,
            }
            job = job.model_copy(update=changed)
            if job.finished:
                return
        else:
            job = job.model_copy(update={"progress": job.progress.read(job.progress.raw() | event.data)})
        yield job


def log_entries(client: Client, job_id: str, types: Sequence[str] = SAID) -> Iterator[Event]:
    """The job's events of some types, until it ended: from its event stream, or by polling when the stream fails."""
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
