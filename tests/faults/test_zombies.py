"""A worker that sleeps through its lease and wakes up: nothing that it writes counts."""

import re
import time
from collections.abc import Callable

from sqlalchemy import select

from core.db.tables import checkpoint, event, metric_chunk
from tests.faults.conftest import SHORT, Truth
from tests.support.service import Service, gone
from tests.support.stopping import stopped_between_writes

Check = Callable[[Service, str], None]
LEASE_SECONDS = 3.0


def test_a_zombie_writes_nothing(either_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """SIGSTOP of worker, zygote and runner for three leases; another worker takes over meanwhile; SIGCONT."""
    zombie = either_service.worker
    job_id = either_service.submit(truth.spec)
    either_service.when_at(job_id, truth.steps // 3)
    stopped, (runner,) = zombie.tree(), zombie.runners()
    with stopped_between_writes(either_service, stopped):
        asleep = time.monotonic()
        other = either_service.start_worker()
        either_service.when(job_id, lambda job: job["attempt"] == 2)
        mark = newest_event(either_service)
        while time.monotonic() - asleep < 3 * LEASE_SECONDS:
            time.sleep(0.1)
    assert gone(runner, 5.0)
    same_as_undisturbed(either_service, job_id)
    assert either_service.job(job_id)["attempt"] == 2
    assert written_by(either_service, job_id, attempt=1, after=mark) == []
    assert other.exit_code is None
    numbers = dict(re.findall(r"^(basin_\w+_total) (\S+)$", either_service.http.get("/metrics").text, re.MULTILINE))
    assert float(numbers["basin_takeovers_total"]) >= 1
    assert float(numbers["basin_fenced_writes_total"]) >= 1
    # The zombie gave up that attempt and nothing else: it takes jobs again.
    other.stop()
    assert either_service.ended(either_service.submit(SHORT))["status"] == "succeeded"


def newest_event(service: Service) -> int:
    with service.database() as db, db.read() as connection:
        return int(max(connection.execute(select(event.c.id)).scalars()))


def written_by(service: Service, job_id: str, *, attempt: int, after: int) -> list[object]:
    """What this attempt has behind the other's beginning: events, and points and checkpoints later than its own."""
    with service.database() as db, db.read() as connection:
        events = select(event.c.type).where(event.c.job_id == job_id, event.c.attempt == attempt, event.c.id > after)
        first = (
            connection.execute(
                select(checkpoint.c.step)
                .where(checkpoint.c.job_id == job_id, checkpoint.c.attempt > attempt)
                .order_by(checkpoint.c.step)
            )
            .scalars()
            .first()
        )
        chunks = select(metric_chunk.c.series).where(
            metric_chunk.c.job_id == job_id,
            metric_chunk.c.attempt == attempt,
            metric_chunk.c.after_step >= first,
        )
        return [*connection.execute(events).scalars(), *connection.execute(chunks).scalars()]
