"""Metrics of this process and of the database, in Prometheus' text format.

Labels are bounded: route templates instead of paths, classes of statuses, the methods of HTTP.
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
from core.lifecycle import LIGHT

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # HEAD is a GET by then
SLOT_KINDS: Final = ("cpu", "gpu", LIGHT)
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Telemetry:
    """The metrics of one app. It has its own registry, so that two apps in a process do not share metrics."""

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
        """Record a finished request. Status 0: the client disconnected before the response."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        kind = f"{status // 100}xx" if status else "none"
        self._requests.labels(method, self._path_template(scope.get("route")), kind).observe(seconds)

    def render_metrics(self, stats: ServiceStats | None) -> bytes:
        """All metrics as text. `stats` is None while the database is away: its metrics are then left out."""
        return generate_latest(self._registry) + generate_latest(_StatsRegistry(stats))

    def _path_template(self, route: Any) -> str:
        """The path of a route with its parameters as names; all unmatched paths share one label."""
        if not self._templates:  # all routers are included by the first request
            contexts = iter_route_contexts(self._app.routes)
            self._templates = {id(context.original_route): context.path or "" for context in contexts}
        return self._templates.get(id(route), "none")


class _StatsRegistry(CollectorRegistry):
    """The metrics of the database at one time, as `generate_latest` reads them."""

    def __init__(self, stats: ServiceStats | None) -> None:
        super().__init__()
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats
        yield GaugeMetricFamily("basin_database_up", "Whether the database answered.", value=float(stats is not None))
        if stats is None:
            return
        jobs = GaugeMetricFamily("basin_jobs", "Jobs by status.", labels=("status",))
        for status, count in stats.jobs.items():
            jobs.add_metric((status.value,), count)
        yield jobs
        slots = GaugeMetricFamily(
            "basin_slots", "Slots of live workers by kind, in service or out of it.", labels=("kind", "state")
        )
        for kind in SLOT_KINDS:
            tally = stats.slots.get(kind, SlotUsage(0, 0))
            slots.add_metric((kind, "in_service"), tally.slots)
            slots.add_metric((kind, "out_of_service"), len(tally.out))
        yield slots
        yield GaugeMetricFamily(
            "basin_queue_oldest_seconds", "How long the oldest queued job has waited.", value=stats.queue_oldest
        )
        yield GaugeMetricFamily(
            "basin_lease_lag_seconds",
            "How long the oldest lease of a running job is over; more than a few seconds: no reconciler works.",
            value=stats.lease_lag,
        )
        if stats.reconciler_lag is not None:
            yield GaugeMetricFamily(
                "basin_reconciler_lag_seconds", "Since any reconciler's last round.", value=stats.reconciler_lag
            )
        yield CounterMetricFamily(
            "basin_takeovers", "Attempts taken from workers whose lease ran out.", value=stats.takeovers
        )
        yield CounterMetricFamily(
            "basin_fenced_writes",
            "Writes refused because their attempt was over; an attempt stops at its first, and counts once.",
            value=stats.fenced_writes,
        )
