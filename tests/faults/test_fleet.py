"""Workers are listed while they live, and marked when they vanish; what waits is served by priority, then by age."""

from typing import Any

import pytest

from tests.faults.conftest import SHORT, SPEC
from tests.support.service import Service, until


@pytest.mark.slow
def test_workers_come_and_go(sqlite_service: Service) -> None:
    service = sqlite_service

    def workers() -> dict[str, Any]:
        return {one["pid"]: one for one in service.http.get("/v1/workers").json()["data"]}

    first = service.worker
    until("the worker reports", lambda: first.pid in workers(), 10)
    job_id = service.submit(SPEC | {"epochs": 10_000})
    service.when(job_id, lambda job: job["status"] == "running")
    mine = until("it says that its slot is taken", lambda: busy(workers().get(first.pid)), 10)
    assert (mine["status"], mine["jobs"]) == ("live", [job_id])
    waiting = [service.submit(SHORT | {"priority": priority}) for priority in (-3, 0, 0, 7)]
    served = [waiting[3], waiting[1], waiting[2], waiting[0]]
    queued = service.http.get("/v1/queue").json()["data"]
    assert [(one["id"], one["reason"]["code"]) for one in queued] == [(each, "slots_busy") for each in served]
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    ended = [service.ended(each) for each in served]
    assert [job["status"] for job in ended] == ["succeeded"] * 4
    started = [job["started_at"] for job in ended]
    assert started == sorted(started)
    second = service.start("worker", ["--slots", "1"])
    until("the second one has a free slot", lambda: offers(workers().get(second.pid)), 60)
    assert "worker is ready" in second.said, "no slot is free before torch is loaded"
    assert second.stop() == 0
    assert second.pid not in workers()
    first.kill()
    until("the first one is missed", lambda: workers()[first.pid]["status"] == "lost", 10)
    assert service.http.get("/v1/queue").json()["slots"] == {}


def busy(worker: dict[str, Any] | None) -> dict[str, Any] | None:
    return worker if worker and worker["slots"]["cpu"] == {"slots": 1, "free": 0} else None


def offers(worker: dict[str, Any] | None) -> bool:
    return worker is not None and worker["slots"]["cpu"]["free"] > 0
