"""Why jobs wait: the queue as a project sees it, each job with a reason and an estimate of its start."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, func, select

from core.db.session import Database
from core.db.tables import job, job_state
from core.jobs.health.workers import SlotUsage, WorkerView, list_worker_views, live_workers, total_slots
from core.jobs.plugins import describe_missing, needed_plugins, read_plugins
from core.jobs.queue.rank import PLACES, ahead_in_queue
from core.lifecycle import LIGHT, Desired, Status

LAST_RUNS: Final = 20  # jobs from which the median length of a run is computed
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("cpu",),
    "gpu": ("gpu",),
    "any": ("gpu", "cpu"),
    LIGHT: (LIGHT,),
}


@dataclass(frozen=True, slots=True)
class WaitReason:
    """Why a job waits; `code` is stable, `message` is for users."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A queued job. `ahead` that need the same slots are served first; `eta_seconds` until it starts, None: unknown."""

    job_id: str
    name: str | None
    priority: int
    needs: str
    ahead: int
    created_at: float
    reason: WaitReason
    eta_seconds: float | None


@dataclass(frozen=True, slots=True)
class QueueForecast:
    """What the estimates of a project's queued jobs need: the fleet's slots, how many of its jobs run, and the median
    length of a run in seconds (None: none has succeeded yet).
    """

    slots: Mapping[str, SlotUsage]
    running: int
    usual: float | None
    live: tuple[WorkerView, ...] = ()

    def forecast_start(
        self, needs: str, ahead: int, *, desired: str, most: int | None, plugins: Mapping[str, str] | None = None
    ) -> tuple[WaitReason, float | None]:
        """Why a job waits, and in how many seconds it starts; None when that cannot be said.

        `plugins` are those that it needs: only workers that have them count.
        """
        if desired != Desired.RUN.value:
            return WaitReason("not_wanted", "A request to pause or cancel it is being carried out."), None
        if missing := self.missing_plugin(plugins or {}):
            return WaitReason("no_plugin", missing), None
        slots = self._slots_with(plugins) if plugins else self.slots
        cause = wait_reason(needs, ahead, slots, running=self.running, most=most)
        usual = None if needs == LIGHT else self.usual  # of trainings
        return cause, estimate_start(ahead, _matching_slots(needs, slots), usual, cause)

    def missing_plugin(self, plugins: Mapping[str, str]) -> str | None:
        """The message where workers are live and none of them has all of these plug-ins."""
        return describe_missing(plugins, [view.plugins for view in self.live]) if self.live else None

    def _slots_with(self, plugins: Mapping[str, str]) -> Mapping[str, SlotUsage]:
        return total_slots(view for view in self.live if plugins.keys() <= view.plugins)


def forecast_queue(db: Database, project: str, lost_after: float) -> QueueForecast:
    """The present forecast; workers that have not reported for more than `lost_after` seconds do not count."""
    live = live_workers(list_worker_views(db, project), lost_after)
    with db.read() as connection:
        return _read_forecast(connection, project, total_slots(live), live)


def list_queued_jobs(
    db: Database, project: str, slots: Mapping[str, SlotUsage], limit: int = 100, live: Sequence[WorkerView] = ()
) -> tuple[list[QueuedJob], int]:
    """The first `limit` queued jobs of a project in the order of service, and how many there are.

    `slots` are those of the workers that live, `live` these workers.
    """
    with db.read() as connection:
        rows = connection.execute(_select_queued(project, slots.keys()).limit(limit)).all()
        if not rows:
            return [], 0
        total = _count_jobs(connection, project, Status.QUEUED) if len(rows) == limit else len(rows)
        expected = _read_forecast(connection, project, slots, live)
    return [_as_queued_job(row, expected) for row in rows], total


def wait_reason(
    needs: str, ahead: int, slots: Mapping[str, SlotUsage], *, running: int = 0, most: int | None = None
) -> WaitReason:
    """Why a job with these needs waits: the first reason that applies. `running` of its project run, `most` may."""
    mine = _matching_slots(needs, slots)
    place = PLACES[needs]
    if not mine.slots:
        return _without_slot(place, mine.out, slots)
    if needs != LIGHT and most is not None and running >= most:
        return WaitReason("owner_limit", f"{running} of your jobs run, and {most} may.")
    if mine.free == 0:
        busy = f"All {mine.slots} {place}s are busy" if mine.slots > 1 else f"The only {place} is busy"
        return WaitReason("slots_busy", f"{busy}; {_format_jobs(ahead)} first.")
    if ahead >= mine.free:
        return WaitReason("others_first", f"{_format_jobs(ahead)} first.".capitalize())
    return WaitReason(
        "starting", f"{'The light lane' if needs == LIGHT else 'A slot'} is free and is about to claim it."
    )


def estimate_start(ahead: int, mine: SlotUsage, usual: float | None, cause: WaitReason) -> float | None:
    """An estimate: each job ahead takes the median time, spread over the slots; running ones are halfway through."""
    if usual is None or not mine.slots or cause.code in {"no_worker", "no_slot", "owner_limit"}:
        return None
    rounds = max(0, ahead - mine.free) / mine.slots + (0.0 if mine.free > ahead else 0.5)
    return round(rounds * usual, 1)


def _read_forecast(
    connection: Connection, project: str, slots: Mapping[str, SlotUsage], live: Sequence[WorkerView]
) -> QueueForecast:
    return QueueForecast(slots, _count_jobs(connection, project, Status.RUNNING), _usual_run(connection), tuple(live))


def _as_queued_job(row: Row[Any], expected: QueueForecast) -> QueuedJob:
    spec = json.loads(row.spec) | (row.edits or {})
    plugins = read_plugins(row.plugins)
    cause, starts = expected.forecast_start(
        row.needs, row.ahead, desired=row.desired, most=row.most_running, plugins=plugins
    )
    return QueuedJob(row.id, row.name, spec["priority"], row.needs, row.ahead, row.created_at, cause, starts)


def _select_queued(project: str, kinds: Collection[str]) -> Select[Any]:
    """The project's queued jobs with their positions, counted over the queues of all projects in one pass."""
    state = job_state.c
    ahead = ahead_in_queue(kinds).label("ahead")
    columns = (state.job_id, state.rank, state.needs, state.desired, state.most_running)
    places = select(*columns, ahead).where(state.status == Status.QUEUED.value).subquery()
    of_job = (job.c.id, job.c.name, job.c.spec, job.c.edits, job.c.created_at)
    of_place = (places.c.needs, places.c.desired, places.c.most_running, places.c.ahead)
    plugins = needed_plugins(job.c.id).label("plugins")
    joined = select(*of_job, *of_place, plugins).join(places, places.c.job_id == job.c.id)
    return joined.where(job.c.project == project).order_by(places.c.rank, places.c.job_id)


def _count_jobs(connection: Connection, project: str, status: Status) -> int:
    query = select(func.count()).where(job_state.c.project == project, job_state.c.status == status.value)
    if status is Status.RUNNING:  # jobs of the light lane do not count against the limit
        query = query.where(job_state.c.needs != LIGHT)
    return int(connection.execute(query).scalar_one())


def _usual_run(connection: Connection) -> float | None:
    """The median length in seconds of the last runs in slots that succeeded, over all projects."""
    state = job_state.c
    trained = (state.status == Status.SUCCEEDED.value, state.needs != LIGHT)
    last = select(state.job_id).where(*trained).order_by(state.rank.desc())
    query = select(job.c.finished_at - job.c.started_at).where(job.c.id.in_(last.limit(LAST_RUNS)))
    lengths = [float(length) for length in connection.execute(query).scalars() if length is not None]
    return median(lengths) if lengths else None


def _matching_slots(needs: str, slots: Mapping[str, SlotUsage]) -> SlotUsage:
    """The slots that can run it."""
    return sum((slots[kind] for kind in _KINDS[needs] if kind in slots), SlotUsage(0, 0))


def _without_slot(place: str, out: Sequence[str], slots: Mapping[str, SlotUsage]) -> WaitReason:
    """The reason where no suitable slot is in service; `out` are the reasons of those that are out of service."""
    if out:
        return WaitReason("no_slot", _out_of_service(place, out))
    if not any(tally.slots or tally.out for kind, tally in slots.items() if kind != LIGHT):
        return WaitReason("no_worker", "No worker is there; start one with `basin worker`.")
    others = ", ".join(sorted(slots.keys() - {LIGHT}))
    return WaitReason("no_slot", f"No worker has a {place}; there are {others} slots.")


def _out_of_service(place: str, reasons: Sequence[str]) -> str:
    """The message while every `place` is out of service."""
    one, many = ("GPU", "GPUs") if place == "gpu slot" else (place, f"{place}s")
    subject = f"The only {one} is" if len(reasons) == 1 else f"All {len(reasons)} {many} are"
    why = ", ".join(sorted(set(reasons)))
    return f"{subject} out of service: {why}; see `basin workers`."


def _format_jobs(count: int) -> str:
    return "no other job goes" if count == 0 else "one job goes" if count == 1 else f"{count} jobs go"
