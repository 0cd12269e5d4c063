"""What the database says of the rest of the service: who reconciles, who works, who waits."""

from collections.abc import Iterator
from importlib import metadata

from core.db.session import Database
from core.jobs.changes import NOBODY
from core.jobs.health.readiness import reconciler_problem
from core.jobs.health.stats import ServiceStats, read_service_stats
from core.jobs.health.workers import SlotState, WorkerView, is_live, list_worker_views
from core.lifecycle import Status
from core.settings import Settings
from local.doctor.checks import CheckResult, failed_check, passed_check, warning_check

START = "start an api or a worker (`basin up`), and see its log: a reconciler runs in each"


def service_checks(db: Database, settings: Settings) -> Iterator[CheckResult]:
    """Reconcilers, leases, workers."""
    vitals = read_service_stats(db)
    yield reconciler_check(vitals, settings)
    yield lease_check(vitals, settings)
    yield from worker_checks(list_worker_views(db, NOBODY), vitals, settings)


def reconciler_check(vitals: ServiceStats, settings: Settings) -> CheckResult:
    """Nobody reconciles: bad where jobs wait for it, else only a service that is not running."""
    lag, name = vitals.reconciler_lag, "reconciler"
    found = reconciler_problem(lag, settings.gap_seconds)
    if found is None:
        return passed_check(name, f"the last round was {max(0.0, lag or 0.0):.1f} s ago")
    open_ = vitals.jobs[Status.RUNNING] + vitals.jobs[Status.QUEUED]
    return (
        failed_check(name, f"{found}, and {open_} jobs are open", START) if open_ else warning_check(name, found, START)
    )


def lease_check(vitals: ServiceStats, settings: Settings) -> CheckResult:
    """A lease that is over for more than a gap should have been taken back."""
    found = f"{vitals.jobs[Status.RUNNING]} jobs run"
    if vitals.lease_lag > settings.gap_seconds + settings.tick_seconds:
        return failed_check("leases", f"{found}; the oldest lease is over for {vitals.lease_lag:.0f} s", START)
    return passed_check("leases", found)


def worker_checks(views: list[WorkerView], vitals: ServiceStats, settings: Settings) -> Iterator[CheckResult]:
    """Who is there to take a job, and of which release."""
    name, ours = "workers", metadata.version("basin-server")
    live = [view for view in views if is_live(view, settings.lease_seconds)]
    slots = sum(tally.slots for view in live for tally in view.slots.values())
    free = sum(tally.free for view in live for tally in view.slots.values())
    waiting = vitals.jobs[Status.QUEUED]
    found = f"{len(live)} alive, {free} of {slots} slots free, {waiting} jobs wait"
    if waiting:
        found += f", the oldest for {vitals.queue_oldest:.0f} s"
    yield passed_check(name, found) if live else warning_check(name, found, "start one: `basin worker`, or `basin up`")
    for view in views:
        if view not in live:
            found = f"{view.id} on {view.host} was last heard of {view.silent:.0f} s ago"
            yield warning_check(name, found, "see whether it still runs; its row goes away after a few minutes")
        elif view.release != ours:
            found = f"{view.id} on {view.host} is release {view.release}, this is {ours}"
            yield warning_check(name, found, "bring all parts to one release")
    for view in live:
        for state in view.states:
            if not state.in_service:
                yield slot_check(view, state)


def slot_check(view: WorkerView, state: SlotState) -> CheckResult:
    """A slot that its worker does not offer."""
    slot = state.device or f"a {state.kind} slot"
    found = f"{view.id} on {view.host}: {slot} is out of service ({state.reason}): {state.detail}"
    return warning_check(
        "workers", found, "see the log of the worker, and docs/gpu.md; a probe brings it back when it works"
    )
