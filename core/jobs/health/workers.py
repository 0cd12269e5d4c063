"""The fleet: each worker writes a row about itself every few seconds. Users read the rows; no lease depends on them."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import Any, Final, Self

from sqlalchemy import Connection, delete, func, select

from core.db.session import Database, database_now
from core.db.tables import job_state
from core.db.tables import worker as workers
from core.db.upsert import insert_or_update
from core.lifecycle import Status

FORGET_SECONDS: Final = 180.0  # a worker that has not reported for this long is not listed any more


@dataclass(frozen=True, slots=True)
class SlotUsage:
    """Slots of one kind: how many are in service, and how many of those are free. `out` has the reason of each slot
    that is out of service.
    """

    slots: int
    free: int
    out: tuple[str, ...] = ()

    def __add__(self, other: "SlotUsage") -> "SlotUsage":
        return SlotUsage(self.slots + other.slots, self.free + other.free, self.out + other.out)


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot with a GPU, or one of any kind that is out of service.

    `device` is its name in CUDA_VISIBLE_DEVICES: the UUID, where the driver gives one; empty for a slot that computes
    on the CPU. `since`: when it came into service or went out of it, by the clock of its worker. `reason` (one of
    worker.devices.report.REMEDIES) and `detail` are set while it is out of service.
    """

    kind: str
    device: str
    in_service: bool
    since: float
    name: str | None = None
    memory_bytes: int | None = None
    reason: str | None = None
    detail: str | None = None

    @classmethod
    def from_row(cls, document: Mapping[str, Any]) -> Self:
        """From the column `devices`; keys that a later release has added are left out."""
        return cls(**{each.name: document[each.name] for each in fields(cls) if each.name in document})


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker reports about itself; `slots` by kind (cpu, gpu), `plugins` with their versions."""

    id: str
    slots: Mapping[str, SlotUsage]
    states: tuple[SlotState, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as users see it: `silent` seconds since its last report, and the reader's own jobs on it. `states` is
    empty for a worker of an earlier release.
    """

    id: str
    host: str
    pid: int
    release: str
    slots: dict[str, SlotUsage]
    started_at: float
    seen_at: float
    silent: float
    jobs: tuple[str, ...]
    states: tuple[SlotState, ...] = ()
    plugins: frozenset[str] = frozenset()


def report_worker(db: Database, report: WorkerReport) -> None:
    """Write the row of this process's worker, by the database's clock."""
    fresh = {
        # No more keys than these: the previous release refuses unknown ones.
        "slots": {kind: {"slots": tally.slots, "free": tally.free} for kind, tally in report.slots.items()},
        "devices": [asdict(state) for state in report.states],
        "plugins": dict(report.plugins),
        "seen_at": database_now(),
    }
    about = {
        "id": report.id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "release": metadata.version("basin-server"),
        "started_at": database_now(),
    }
    with db.write() as connection:
        insert_or_update(connection, workers, about | fresh, fresh)


def delete_worker(db: Database, worker_id: str) -> None:
    """Delete the row of a worker that has stopped regularly."""
    with db.write() as connection:
        connection.execute(delete(workers).where(workers.c.id == worker_id))


def delete_silent_workers(db: Database) -> int:
    """Delete the rows of workers that have not reported for `FORGET_SECONDS`; a live one writes a new row.

    A report with a time in the future was written before the clock was set back, and is deleted too.
    """
    silent = func.abs(database_now() - workers.c.seen_at) > FORGET_SECONDS
    with db.read() as connection:
        if connection.execute(select(workers.c.id).where(silent).limit(1)).first() is None:
            return 0
    with db.write() as connection:
        return connection.execute(delete(workers).where(silent)).rowcount


def list_worker_views(db: Database, project: str) -> list[WorkerView]:
    """All workers, in the order of their names; of the jobs on them only this project's."""
    row, state = workers.c, job_state.c
    columns = (row.id, row.host, row.pid, row.release, row.slots, row.devices, row.plugins, row.started_at, row.seen_at)
    mine = (
        select(state.worker, state.job_id)
        .where(state.project == project, state.status == Status.RUNNING.value)
        .order_by(state.job_id)
    )
    with db.read() as connection:
        found = connection.execute(
            select(*columns, (database_now() - row.seen_at).label("silent")).order_by(row.id)
        ).all()
        jobs: dict[str, tuple[str, ...]] = {}
        for name, job_id in connection.execute(mine):
            jobs[name] = (*jobs.get(name, ()), job_id)
    views = []
    for one in found:
        facts = one._asdict()
        states = _slot_states(facts.pop("devices"))
        facts["slots"] = _slot_usage(one.slots, states)
        facts["plugins"] = frozenset(one.plugins or ())
        views.append(WorkerView(**facts, jobs=jobs.get(one.id, ()), states=states))
    return views


def _slot_states(documents: Sequence[Mapping[str, Any]] | None) -> tuple[SlotState, ...]:
    return tuple(SlotState.from_row(document) for document in documents or ())


def _slot_usage(counts: Mapping[str, Mapping[str, int]], states: Iterable[SlotState]) -> dict[str, SlotUsage]:
    """The columns `slots` and `devices` as one."""
    tallies = {kind: SlotUsage(count["slots"], count["free"]) for kind, count in counts.items()}
    for state in states:
        if not state.in_service:
            before = tallies.get(state.kind, SlotUsage(0, 0))
            tallies[state.kind] = replace(before, out=(*before.out, state.reason or "failed"))
    return tallies


def count_slots(connection: Connection, lost_after: float) -> dict[str, SlotUsage]:
    """The slots of all workers that have reported in the last `lost_after` seconds, by kind."""
    row = workers.c
    query = select(row.slots, row.devices).where(database_now() - row.seen_at <= lost_after)
    total: dict[str, SlotUsage] = {}
    for slots, devices in connection.execute(query):
        _add_usage(total, _slot_usage(slots, _slot_states(devices)))
    return total


def kinds_seen(connection: Connection, within: float = FORGET_SECONDS) -> frozenset[str]:
    """The kinds of slots of the workers that have reported in the last `within` seconds."""
    query = select(workers.c.slots).where(database_now() - workers.c.seen_at <= within)
    return frozenset(kind for slots in connection.execute(query).scalars() for kind in slots)


def live_workers(views: Iterable[WorkerView], lost_after: float) -> tuple[WorkerView, ...]:
    """Those that have reported in the last `lost_after` seconds."""
    return tuple(view for view in views if is_live(view, lost_after))


def total_slots(views: Iterable[WorkerView]) -> dict[str, SlotUsage]:
    """Their slots, by kind."""
    total: dict[str, SlotUsage] = {}
    for view in views:
        _add_usage(total, view.slots)
    return total


def _add_usage(total: dict[str, SlotUsage], more: Mapping[str, SlotUsage]) -> None:
    for kind, tally in more.items():
        total[kind] = total.get(kind, SlotUsage(0, 0)) + tally


def is_live(view: WorkerView, lost_after: float) -> bool:
    """Whether it reported within `lost_after` seconds. A report in the future is from before the clock was set back."""
    return view.silent <= lost_after
