"""SIGSTOP of the process that alone can reap and report runners: nobody waits for it, and no job pays for it."""

import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.faults.conftest import SHORT, Truth
from tests.support.service import Service, gone

Check = Callable[[Service, str], None]
SILENCE_SECONDS = 2.0


@pytest.fixture(params=["lasting_service", pytest.param("lasting_postgresql_service", marks=pytest.mark.slow)])
def hasty_service(request: pytest.FixtureRequest) -> Iterator[Service]:
    """One api and one worker that does not wait long for its zygote."""
    service = request.getfixturevalue(request.param)
    assert isinstance(service, Service)
    stop_workers(service)
    service.environment["BASIN_ZYGOTE_SILENCE_SECONDS"] = str(SILENCE_SECONDS)
    service.heal()
    yield service
    del service.environment["BASIN_ZYGOTE_SILENCE_SECONDS"]
    stop_workers(service)


def stop_workers(service: Service) -> None:
    for worker in service.workers:
        worker.stop()


@pytest.mark.parametrize("deaf", [pytest.param(False, marks=pytest.mark.slow), True])
def test_cancel(sqlite_service: Service, truth: Truth, deaf: bool) -> None:
    """Within 15 s, also when the runner hears nothing either; the slot is free again."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 10)
    zygote, (runner,) = zygote_of(sqlite_service), sqlite_service.worker.runners()
    zygote.send_signal(signal.SIGSTOP)
    if deaf:
        runner.send_signal(signal.SIGSTOP)
    try:
        sqlite_service.http.post(f"/v1/jobs/{job_id}/cancel")
        assert sqlite_service.ended(job_id, seconds=15)["status"] == "cancelled"
        assert gone(runner, 0.1)
    finally:
        zygote.send_signal(signal.SIGCONT)
    assert sqlite_service.ended(sqlite_service.submit(SHORT))["status"] == "succeeded"


@pytest.mark.slow
def test_replacement(hasty_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """Stopped together with its worker, a zygote may need a moment. Stopped alone, it is replaced: its job goes on from
    its last checkpoint, and no loss is counted.
    """
    zygote, worker = zygote_of(hasty_service), psutil.Process(hasty_service.worker.pid)
    zygote.send_signal(signal.SIGSTOP)
    worker.send_signal(signal.SIGSTOP)
    time.sleep(2 * SILENCE_SECONDS)
    worker.send_signal(signal.SIGCONT)
    time.sleep(SILENCE_SECONDS / 4)
    zygote.send_signal(signal.SIGCONT)
    job_id = hasty_service.submit(truth.spec)
    hasty_service.when_at(job_id, truth.steps // 5)
    (runner,) = hasty_service.worker.runners()
    assert runner.ppid() == zygote.pid
    zygote.send_signal(signal.SIGSTOP)
    runner.send_signal(signal.SIGSTOP)  # or it may be done before anybody misses its zygote
    hasty_service.when(job_id, lambda job: job["attempt"] == 2, seconds=30)
    assert gone(zygote, 0.1)
    assert gone(runner, 0.1)
    same_as_undisturbed(hasty_service, job_id)
    job = hasty_service.job(job_id)
    assert job["attempt"] == 2
    details = [entry["detail"] for entry in job["timeline"] if entry["status"] == "queued"]
    assert details[1:] == ["its worker replaced a zygote that did not answer"]
    assert hasty_service.http.get(f"/v1/jobs/{job_id}/events?types=warning").json()["data"] == []


def zygote_of(service: Service) -> psutil.Process:
    zygote = service.worker.zygote()
    assert zygote is not None
    return zygote
