"""Watching a job from a terminal: a bar that moves where the terminal can, plain lines everywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from basin import screen
from basin.client import Client
from basin.shapes import Job

FIRST_PAUSE, LAST_PAUSE = 0.5, 10.0  # seconds between lines of progress in a log file: a long job says less
Show = Callable[[Job], None]


@contextmanager
def lines(*, stderr: bool) -> Iterator[Show]:
    """A line whenever the status changes, and now and then one about progress."""
    status, quiet_until, pause = "", 0.0, FIRST_PAUSE

    def show(job: Job) -> None:
        nonlocal status, quiet_until, pause
        told = screen.facts(job.progress) if job.status == "running" else []
        if job.status == status and (not told or time.monotonic() < quiet_until):
            return
        pause = FIRST_PAUSE if job.status != status else min(2 * pause, LAST_PAUSE)
        status, quiet_until = job.status, time.monotonic() + pause
        screen.say("  ".join([job.id, headline(job), *told]), stderr=stderr)

    yield show


@contextmanager
def bar() -> Iterator[Show]:
    """One line that is drawn over: a bar, the epoch, loss, accuracy, learning rate."""
    columns = (BarColumn(16), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=screen.console()) as bars:
        task = bars.add_task("waiting", total=1.0)

        def show(job: Job) -> None:
            told = screen.facts(job.progress)
            words = told if told and job.status in {"running", "succeeded"} else [headline(job), *told[:1]]
            fraction = 1.0 if job.status == "succeeded" else job.progress.fraction or 0.0
            bars.update(task, completed=fraction, description=screen.clean("  ".join(words)))

        yield show


def headline(job: Job) -> str:
    """The status in words."""
    if job.status == "queued" and job.queue and job.queue.ahead:
        return f"queued ({job.queue.ahead} ahead)"
    return f"{job.status} ({job.stop_reason})" if job.stop_reason not in {None, "completed"} else job.status


def follow(client: Client, job_id: str, *, stderr: bool = False) -> Job:
    """Shows a job until it ended, and returns it. `stderr` keeps stdout free for a result."""
    view: AbstractContextManager[Show] = bar() if screen.interactive() and not stderr else lines(stderr=stderr)
    with view as show:
        for job in client.changes(job_id):
            show(job)
    return job
