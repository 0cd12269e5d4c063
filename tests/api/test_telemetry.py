"""The numbers for Prometheus: right, bounded, for those who may ask, and there while the database is away."""

import time
from pathlib import Path

from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from sqlalchemy import text

from api.app import create_app
from api.dependencies import Service
from core.jobs.attempt.reconcile import Reconciler
from core.jobs.health.counters import FENCED_WRITES, add_count
from core.jobs.health.workers import SlotState, SlotUsage, WorkerReport, report_worker
from core.jobs.verbs import request_cancel
from core.settings import Settings
from tests.api.conftest import HERE
from tests.support.jobs import OWNER, HeardHints, run_out, running, submitted

KINDS = ("cpu", "gpu")
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def read(client: TestClient) -> Samples:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(answer.text) for sample in family.samples]
    found = {(sample.name, frozenset(sample.labels.items())): sample.value for sample in samples}
    assert len(found) == len(samples), "no sample twice"
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_the_queue_the_leases_and_the_takeovers(client: TestClient, service: Service) -> None:
    """Nothing; then one running whose lease is over, two queued, one cancelled; then it is taken back."""
    empty = read(client)
    assert value(empty, "basin_database_up") == 1
    assert value(empty, "basin_jobs", status="queued") == value(empty, "basin_queue_oldest_seconds") == 0
    fence = running(service.db)
    submitted(service.db)
    submitted(service.db)
    request_cancel(service.db, OWNER, submitted(service.db))
    reconciler = Reconciler(service.db, service.store, HeardHints(), service.settings)
    reconciler.reclaim_expired_leases()  # the first round of all finds a gap, and takes nothing
    run_out(service.db, fence.job_id)
    found = read(client)
    counts = {status: value(found, "basin_jobs", status=status) for status in ("queued", "running", "cancelled")}
    assert counts == {"queued": 2, "running": 1, "cancelled": 1}
    assert 0 <= value(found, "basin_queue_oldest_seconds") < 60
    assert 1 <= value(found, "basin_lease_lag_seconds") < 60
    assert value(found, "basin_takeovers_total") == 0
    assert reconciler.reclaim_expired_leases() == 1
    after = read(client)
    assert value(after, "basin_takeovers_total") == 1
    assert value(after, "basin_jobs", status="queued") == 3
    assert value(after, "basin_lease_lag_seconds") == 0


def test_slots_in_and_out_of_service(client: TestClient, service: Service) -> None:
    """Both kinds are always there, so that an alarm has something to look at; a silent worker does not count."""

    def slots() -> dict[tuple[str, str], float]:
        found = read(client)
        states = ("in_service", "out_of_service")
        return {
            (kind, state): value(found, "basin_slots", kind=kind, state=state) for kind in KINDS for state in states
        }

    assert set(slots().values()) == {0.0}
    out = [SlotState(kind, "", in_service=False, since=0.0, reason="unkillable") for kind in ("gpu", "cpu", "gpu")]
    report_worker(service.db, WorkerReport("a", {"cpu": SlotUsage(2, 1), "gpu": SlotUsage(1, 0)}, tuple(out)))
    report_worker(service.db, WorkerReport("b", {"cpu": SlotUsage(4, 4)}))
    assert slots() == {
        ("cpu", "in_service"): 6.0,
        ("cpu", "out_of_service"): 1.0,
        ("gpu", "in_service"): 1.0,
        ("gpu", "out_of_service"): 2.0,
    }
    with service.db.write() as connection:
        connection.execute(text("UPDATE worker SET seen_at = seen_at - 100 WHERE id = 'a'"))
    assert set(slots().values()) == {0.0, 4.0}


def test_counts_outlive_everything_and_grow(client: TestClient, service: Service) -> None:
    for grown in (1, 2):
        with service.db.write() as connection:
            add_count(connection, FENCED_WRITES)
        assert value(read(client), "basin_fenced_writes_total") == grown


def test_requests_by_template_and_class(light: TestClient) -> None:
    """Whatever is asked for, the labels come from our own routes and from HTTP's own words."""
    before = len(read(light))
    for number in range(40):
        light.get(f"/v1/jobs/job_{number:026d}")
        light.get(f"/nowhere/{number}")
        light.request(f"VERB{number}", "/healthz")
    light.head("/healthz")
    light.post("/v1/jobs", json={})
    found = read(light)
    name = "basin_request_seconds_count"
    assert value(found, name, method="GET", route="/v1/jobs/{job_id}", status="4xx") == 40
    assert value(found, name, method="GET", route="none", status="4xx") == 40
    assert value(found, name, method="other", route="/healthz", status="4xx") == 40
    assert value(found, name, method="GET", route="/healthz", status="2xx") == 1
    assert value(found, name, method="POST", route="/v1/jobs", status="4xx") == 1
    assert value(found, name, method="GET", route="/metrics", status="2xx") == 1
    assert value(found, "process_resident_memory_bytes") > 2**20
    assert len(found) - before == 6 * (13 + 4), "13 buckets and infinity, sum, count, created; no other series"


def test_it_answers_while_the_database_is_away(tmp_path: Path) -> None:
    url = SecretStr("postgresql://basin:basin@127.0.0.1:1/basin?connect_timeout=1")
    app = create_app(Settings(home=tmp_path, database_url=url, tick_seconds=600))
    with TestClient(app, base_url=HERE) as client:
        assert client.get("/metrics").status_code == 503, "nobody can say whether a key is asked for"
        app.state.service.keyring._asked_at = time.monotonic()  # it was said a moment ago: no
        found = read(client)
    assert value(found, "basin_database_up") == 0
    assert [name for name, _ in found if name.startswith(("basin_jobs", "basin_takeovers"))] == []
    assert value(found, "process_open_fds") > 0


def test_it_stands_behind_the_same_door_as_all_others(light: TestClient) -> None:
    assert light.get("/metrics", headers={"Host": "rebound.example"}).status_code == 403
    assert light.get("/metrics", headers={"Origin": "http://foreign.example"}).status_code == 403
