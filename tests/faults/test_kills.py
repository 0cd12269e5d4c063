"""kill -9 of each process at a random moment: the job ends as if nothing had happened."""

import random
import signal
from collections.abc import Callable
from functools import partial

from tests.faults.conftest import SHORT, Truth
from tests.support.service import Job, Service, gone, until

Check = Callable[[Service, str], None]


def is_past(attempt: int, job: Job) -> bool:
    return bool(job["attempt"] > attempt)


def steps_in(attempt: int, job: Job) -> bool:
    return bool(job["attempt"] == attempt and job["progress"].get("step"))


def test_runner(either_service: Service, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth) -> None:
    """The worker sees it at once: no lease has to end, and signal and cause are in the events."""
    job_id = either_service.submit(truth.spec)
    at_a_random_moment(either_service, job_id)
    (runner,) = either_service.worker.runners()
    runner.kill()
    either_service.when(job_id, lambda job: job["attempt"] == 2, seconds=5)
    same_as_undisturbed(either_service, job_id)
    assert any("SIGKILL" in (entry["detail"] or "") for entry in either_service.job(job_id)["timeline"])


def test_runner_of_a_job_that_rolls_back(
    sqlite_service: Service, same_as_undisturbed: Callable[..., None], rolling: Truth
) -> None:
    """Before, while or after it goes back: the same bits, one point for each step, and it says what it did."""
    job_id = sqlite_service.submit(rolling.spec)
    sqlite_service.when_at(job_id, random.randrange(rolling.steps * 4 // 10, rolling.steps * 6 // 10))
    (runner,) = sqlite_service.worker.runners()
    runner.kill()
    same_as_undisturbed(sqlite_service, job_id, rolling)
    events = sqlite_service.http.get(f"/v1/jobs/{job_id}/events?types=warning").json()["data"]
    assert "rolled_back" in {each["data"]["code"] for each in events}


def test_runner_that_crashes(sqlite_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """A segmentation fault, twice: two losses, but with a checkpoint between them the budget starts anew."""
    job_id = sqlite_service.submit(truth.spec)
    for attempt in (1, 2):
        sqlite_service.when_at(job_id, attempt * truth.steps // 5)
        (runner,) = sqlite_service.worker.runners()
        runner.send_signal(signal.SIGSEGV)
        sqlite_service.when(job_id, partial(is_past, attempt))
    same_as_undisturbed(sqlite_service, job_id)


def test_zygote(sqlite_service: Service, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth) -> None:
    """Its runner dies with it, another zygote is started, and the same worker goes on with the job."""
    worker = sqlite_service.worker
    job_id = sqlite_service.submit(truth.spec)
    at_a_random_moment(sqlite_service, job_id)
    zygote, (runner,) = worker.zygote(), worker.runners()
    assert zygote is not None
    zygote.kill()
    assert gone(runner, 1.0)
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 2


def test_worker(sqlite_service: Service, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth) -> None:
    """Zygote and runner die with it; its lease ends, and the next worker goes on."""
    worker = sqlite_service.worker
    job_id = sqlite_service.submit(truth.spec)
    at_a_random_moment(sqlite_service, job_id)
    below = worker.tree()[1:]
    worker.kill()
    assert all(gone(process, 2.0) for process in below)
    sqlite_service.start_worker()
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 2


def test_api(sqlite_service: Service, same_as_undisturbed: Check, at_a_random_moment: Check, truth: Truth) -> None:
    """Nobody who trains notices."""
    job_id = sqlite_service.submit(truth.spec)
    at_a_random_moment(sqlite_service, job_id)
    api = sqlite_service.api
    assert api is not None
    api.kill()
    sqlite_service.start_api()
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 1


def test_poison(sqlite_service: Service, truth: Truth) -> None:
    """A job that loses its worker each time is given up after three times, and the next job runs."""
    job_id = sqlite_service.submit(truth.spec | {"checkpoints": {"every": truth.steps}})
    for attempt in (1, 2, 3):
        sqlite_service.when(job_id, partial(steps_in, attempt))
        (runner,) = until("a runner", sqlite_service.worker.runners)
        runner.kill()
    job = sqlite_service.ended(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
    assert sqlite_service.ended(sqlite_service.submit(SHORT))["status"] == "succeeded"
