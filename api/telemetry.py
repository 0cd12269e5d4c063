"""What this process measures of itself, and what the database knows, in Prometheus' text format.

Labels are bounded: templates of routes, never paths; classes of statuses; the methods that HTTP has.
"""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, GCCollector, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import Scope

from core.jobs.health.stats import ServiceStats
from core.jobs.health.workers import SlotUsage

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # HEAD is a GET by then
SLOT_KINDS: Final = ("cpu", "gpu")
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """The numbers of one app: an own registry, so that two apps in a process do not mix theirs."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._templates: dict[int, str] = {}
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._requests = Histogram(
            "basin_request_seconds",
            "Seconds from a request to the last byte of its answer; streams last as long as they are read.",
            ("method", "route", "status"),
            buckets=BUCKETS,
            registry=self._registry,
        )

    def observe_request(self, scope: Scope, status: int, seconds: float) -> None:
        """Note one request that is over; status 0: its client left before there was an answer."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        kind = f"{status // 100}xx" if status else "none"
        self._requests.labels(method, self._path_template(scope.get("route")), kind).observe(seconds)

    def render_metrics(self, vitals: ServiceStats | None) -> bytes:
        """Everything as text; without vitals the database is away, and its numbers are left out rather than guessed."""
        return generate_latest(self._registry) + generate_latest(_StatsRegistry(vitals))

    def _path_template(self, route: Any) -> str:
        """The path of a route with its parameters as names; whatever matched no route is one and the same."""
        if not self._templates:  # routers are all in place by the first request
            contexts = iter_route_contexts(self._app.routes)
            self._templates = {id(context.original_route): context.path or "" for context in contexts}
        return self._templates.get(id(route), "none")


class _StatsRegistry(CollectorRegistry):
    """The numbers of the database at one moment, as `generate_latest` wants them."""

    def __init__(self, vitals: ServiceStats | None) -> None:
        super().__init__()
        self._vitals = vitals

    def collect(self) -> Iterator[Metric]:
        vitals = self._vitals
        yield GaugeMetricFamily("basin_database_up", "Whether the database answered.", value=float(vitals is not None))
        if vitals is None:
            return
        jobs = GaugeMetricFamily("basin_jobs", "Jobs by status.", labels=("status",))
        for status, count in vitals.jobs.items():
            jobs.add_metric((status.value,), count)
        yield jobs
        slots = GaugeMetricFamily(
            "basin_slots", "Slots of live workers by kind, in service or out of it.", labels=("kind", "state")
        )
        for kind in SLOT_KINDS:
            tally = vitals.slots.get(kind, SlotUsage(0, 0))
            slots.add_metric((kind, "in_service"), tally.slots)
            slots.add_metric((kind, "out_of_service"), len(tally.out))
        yield slots
        yield GaugeMetricFamily(
            "basin_queue_oldest_seconds", "How long the oldest queued job has waited.", value=vitals.queue_oldest
        )
        yield GaugeMetricFamily(
            "basin_lease_lag_seconds",
            "How long the oldest lease of a running job is over; more than a few seconds: no reconciler works.",
            value=vitals.lease_lag,
        )
        if vitals.reconciler_lag is not None:
            yield GaugeMetricFamily(
                "basin_reconciler_lag_seconds", "Since any reconciler's last round.", value=vitals.reconciler_lag
            )
        yield CounterMetricFamily(
            "basin_takeovers", "Attempts taken from workers whose lease ran out.", value=vitals.takeovers
        )
        yield CounterMetricFamily(
            "basin_fenced_writes",
            "Writes refused because their attempt was over; an attempt stops at its first, and counts once.",
            value=vitals.fenced_writes,
        )
