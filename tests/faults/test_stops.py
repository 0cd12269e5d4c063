"""Deploys, brokers that are not there, and hints that come too often."""

import os
import signal
import time
from collections.abc import Callable

import pytest
from celery import Celery

from core.queue import TASK
from tests.faults.conftest import SHORT, Truth
from tests.support.service import Service, gone, until

Check = Callable[[Service, str], None]


def test_sigterm_in_the_middle_of_a_job(sqlite_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """The job goes back with a checkpoint of its present step, no loss is counted, and the next worker goes on."""
    job_id = sqlite_service.submit(truth.spec)
    before = sqlite_service.when_at(job_id, truth.steps // 3)["progress"]["step"]
    below = sqlite_service.worker.tree()[1:]
    assert sqlite_service.worker.stop(30.0) == 0
    assert all(gone(process, 2.0) for process in below)
    job = sqlite_service.job(job_id)
    assert (job["status"], job["attempt"]) == ("queued", 1)
    (*_, newest) = sqlite_service.checkpoints(job_id)
    assert newest["step"] >= before  # at most one step is lost, wherever the spec's own marks are
    sqlite_service.heal()
    same_as_undisturbed(sqlite_service, job_id)
    job = sqlite_service.job(job_id)
    assert job["attempt"] == 2
    assert job["timeline"][2]["detail"] == "stop"
    assert job["timeline"][3]["detail"].endswith(f"from step {newest['step']}")


def test_a_database_that_is_away_for_two_leases(
    sqlite_service: Service, same_as_undisturbed: Check, truth: Truth
) -> None:
    """Nobody can write, so nobody can beat: the training goes on, and afterwards nothing is taken away or missing."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, 1)
    with sqlite_service.database() as db, db.write():
        time.sleep(2 * 3.0)
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 1


def test_ctrl_c_is_a_stop_like_any_other(sqlite_service: Service, truth: Truth) -> None:
    """A terminal sends it to the whole group; only the worker reacts, and says that all is well."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, 1)
    worker = sqlite_service.worker
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait(30.0) == 0
    assert sqlite_service.job(job_id)["status"] == "queued"
    sqlite_service.http.post(f"/v1/jobs/{job_id}/cancel")


def test_a_broker_that_was_never_started(brokerless_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """The api dies between commit and hint, and none comes back to send it: the poll finds the job, whose result is
    what it would have been. SIGTERM ends an idle worker at once.
    """
    api, worker = brokerless_service.api, brokerless_service.worker
    assert api is not None
    job_id = brokerless_service.submit(truth.spec)
    api.kill()
    until("the worker begins", lambda: job_id in worker.said, seconds=5)
    brokerless_service.start_api()
    same_as_undisturbed(brokerless_service, job_id)
    begun = time.monotonic()
    assert brokerless_service.worker.stop() == 0
    assert time.monotonic() - begun < 10.0


@pytest.mark.slow
def test_a_broker_that_dies_and_comes_back_empty(
    sqlite_service: Service, same_as_undisturbed: Check, truth: Truth
) -> None:
    """Neither the running job nor the next one notices; while the broker hangs, posts are answered all the same."""
    service, broker = sqlite_service, sqlite_service.broker
    assert broker is not None
    job_id = service.submit(truth.spec)
    service.when_at(job_id, truth.steps // 10)
    broker.kill()
    try:
        queued = service.submit(SHORT)
        same_as_undisturbed(service, job_id)
    finally:
        broker.start()
    assert service.ended(queued)["status"] == "succeeded"
    broker.signal(signal.SIGSTOP)
    try:
        hung = service.submit(SHORT)
        assert service.ended(hung)["status"] == "succeeded"
    finally:
        broker.signal(signal.SIGCONT)


def test_hints_that_are_old_doubled_and_about_nothing(
    sqlite_service: Service, same_as_undisturbed: Check, truth: Truth
) -> None:
    """Fifty hints for one job: one attempt."""
    app = Celery(set_as_current=False)
    app.conf.update(
        broker_url=sqlite_service.environment["BASIN_BROKER_URL"],
        broker_transport_options={"global_keyprefix": "basin:"},
    )
    job_id = sqlite_service.submit(truth.spec)
    for _ in range(50):
        app.send_task(TASK, queue="cpu", retry=False)
    app.close()
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 1
    assert sqlite_service.ended(sqlite_service.submit(SHORT))["attempt"] == 1
