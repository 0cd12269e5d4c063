"""kill -9 of each process at a random moment: the job ends as if nothing had happened."""

import random
import signal
from collections.abc import Callable
from functools import partial

from tests.faults.conftest import SPEC, STEPS
from tests.support.broker import Broker
from tests.support.service import Job, Service, gone, until

Check = Callable[[Service, str], None]
Serve = Callable[[str, Broker | None], Service]


def random_step() -> int:
    """Somewhere in the middle, so that there is something to lose and something to do."""
    return random.randrange(STEPS // 10, STEPS * 8 // 10)


def is_past(attempt: int, job: Job) -> bool:
    return bool(job["attempt"] > attempt)


def steps_in(attempt: int, job: Job) -> bool:
    return bool(job["attempt"] == attempt and job["progress"].get("step"))


def test_runner(either_service: Service, same_as_undisturbed: Check) -> None:
    """The worker sees it at once: no lease has to end, and signal and cause are in the events."""
    job_id = either_service.submit(SPEC)
    either_service.when_at(job_id, random_step())
    (runner,) = either_service.worker.runners()
    runner.kill()
    either_service.when(job_id, lambda job: job["attempt"] == 2, seconds=5)
    same_as_undisturbed(either_service, job_id)
    assert any("SIGKILL" in (entry["detail"] or "") for entry in either_service.job(job_id)["timeline"])


def test_runner_that_crashes(sqlite_service: Service, same_as_undisturbed: Check) -> None:
    """A segmentation fault, twice: two losses, but with a checkpoint between them the budget starts anew."""
    job_id = sqlite_service.submit(SPEC)
    for attempt in (1, 2):
        sqlite_service.when_at(job_id, attempt * STEPS // 3)
        (runner,) = sqlite_service.worker.runners()
        runner.send_signal(signal.SIGSEGV)
        sqlite_service.when(job_id, partial(is_past, attempt))
    same_as_undisturbed(sqlite_service, job_id)


def test_zygote(sqlite_service: Service, same_as_undisturbed: Check) -> None:
    """Its runner dies with it, another zygote is started, and the same worker goes on with the job."""
    worker = sqlite_service.worker
    job_id = sqlite_service.submit(SPEC)
    sqlite_service.when_at(job_id, random_step())
    zygote, (runner,) = worker.zygote(), worker.runners()
    assert zygote is not None
    zygote.kill()
    assert gone(runner, 1.0)
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 2


def test_worker(either_service: Service, same_as_undisturbed: Check) -> None:
    """Zygote and runner die with it; its lease ends, and the next worker goes on."""
    worker = either_service.worker
    job_id = either_service.submit(SPEC)
    either_service.when_at(job_id, random_step())
    below = worker.tree()[1:]
    worker.kill()
    assert all(gone(process, 2.0) for process in below)
    either_service.start_worker()
    same_as_undisturbed(either_service, job_id)
    assert either_service.job(job_id)["attempt"] == 2


def test_api(sqlite_service: Service, same_as_undisturbed: Check) -> None:
    """Nobody who trains notices."""
    job_id = sqlite_service.submit(SPEC)
    sqlite_service.when_at(job_id, random_step())
    api = sqlite_service.api
    assert api is not None
    api.kill()
    sqlite_service.start_api()
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 1


def test_api_between_commit_and_hint(serve: Serve, sqlite_url: str, same_as_undisturbed: Check) -> None:
    """The job is in the database, its hint was never sent, and neither api nor broker comes back to send it."""
    service = serve(sqlite_url, None)
    api = service.start_api()
    job_id = service.submit(SPEC)
    api.kill()
    worker = service.start_worker()
    until("the worker begins", lambda: job_id in worker.said, seconds=20)
    service.start_api()
    same_as_undisturbed(service, job_id)


def test_poison(sqlite_service: Service) -> None:
    """A job that loses its worker each time is given up after three times, and the next job runs."""
    job_id = sqlite_service.submit(SPEC | {"checkpoints": {"every": "3000st"}})
    for attempt in (1, 2, 3):
        sqlite_service.when(
            job_id, lambda job, now=attempt: job["attempt"] == now and job["progress"].get("step", 0) > 0
        )
        runner = until("a runner", lambda: next(iter(sqlite_service.worker.runners()), None))
        runner.kill()
    job = sqlite_service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
    assert sqlite_service.ended(sqlite_service.submit(SPEC | {"epochs": 2}))["status"] == "succeeded"
