"""The state of the service in the database: reconcilers, leases, workers."""

from collections.abc import Iterator
from importlib import metadata

from core.db.session import Database
from core.jobs.changes import NOBODY
from core.jobs.health.readiness import reconciler_problem
from core.jobs.health.stats import ServiceStats, read_service_stats
from core.jobs.health.workers import SlotState, SlotUsage, WorkerView, is_live, list_worker_views, total_slots
from core.lifecycle import LIGHT, Status
from core.settings import Settings
from local.doctor.checks import CheckResult, failed_check, passed_check, warning_check

START = "start an api or a worker (`basin up`), and see its log: a reconciler runs in each"


def service_checks(db: Database, settings: Settings) -> Iterator[CheckResult]:
    """Reconcilers, leases, workers."""
    stats = read_service_stats(db)
    yield reconciler_check(stats, settings)
    yield lease_check(stats, settings)
    yield from worker_checks(list_worker_views(db, NOBODY), stats, settings)


def reconciler_check(stats: ServiceStats, settings: Settings) -> CheckResult:
    """Whether a reconciler runs. Without one: a failure if jobs are open, else a service that is not started."""
    lag, name = stats.reconciler_lag, "reconciler"
    found = reconciler_problem(lag, settings.gap_seconds)
    if found is None:
        return passed_check(name, f"the last round was {max(0.0, lag or 0.0):.1f} s ago")
    open_ = stats.jobs[Status.RUNNING] + stats.jobs[Status.QUEUED]
    return (
        failed_check(name, f"{found}, and {open_} jobs are open", START) if open_ else warning_check(name, found, START)
    )


def lease_check(stats: ServiceStats, settings: Settings) -> CheckResult:
    """Whether expired leases are reclaimed: none is older than a gap and a tick."""
    found = f"{stats.jobs[Status.RUNNING]} jobs run"
    if stats.lease_lag > settings.gap_seconds + settings.tick_seconds:
        return failed_check("leases", f"{found}; the oldest lease expired {stats.lease_lag:.0f} s ago", START)
    return passed_check("leases", found)


def worker_checks(views: list[WorkerView], stats: ServiceStats, settings: Settings) -> Iterator[CheckResult]:
    """The live workers, their free slots and their releases."""
    name, ours = "workers", metadata.version("basin-server")
    live = [view for view in views if is_live(view, settings.lease_seconds)]
    places = total_slots(live)
    lanes = places.pop(LIGHT, SlotUsage(0, 0))
    slots, free = sum(tally.slots for tally in places.values()), sum(tally.free for tally in places.values())
    waiting = stats.jobs[Status.QUEUED]
    beside = f", {lanes.free} of {lanes.slots} light lanes" if lanes.slots else ""
    found = f"{len(live)} live, {free} of {slots} slots free{beside}, {waiting} jobs wait"
    if waiting:
        found += f", the oldest for {stats.queue_oldest:.0f} s"
    yield passed_check(name, found) if live else warning_check(name, found, "start one: `basin worker`, or `basin up`")
    for view in views:
        if view not in live:
            found = f"{view.id} on {view.host} last reported {view.silent:.0f} s ago"
            yield warning_check(name, found, "check whether it still runs; its row is deleted after a few minutes")
        elif view.release != ours:
            found = f"{view.id} on {view.host} is release {view.release}, this is {ours}"
            yield warning_check(name, found, "install the same release everywhere")
    for view in live:
        for state in view.states:
            if not state.in_service:
                yield slot_check(view, state)


def slot_check(view: WorkerView, state: SlotState) -> CheckResult:
    """A slot that its worker does not offer."""
    slot = state.device or f"a {state.kind} slot"
    found = f"{view.id} on {view.host}: {slot} is out of service ({state.reason}): {state.detail}"
    return warning_check(
        "workers", found, "see the log of the worker, and docs/gpu.md; a probe puts it back into service when it works"
    )
