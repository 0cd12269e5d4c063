"""The fleet: each worker writes a row about itself every few seconds. Nothing is decided by it; people read it."""

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from typing import Any, Final, Self

from sqlalchemy import Connection, delete, func, select

from core.db.session import Database, now
from core.db.tables import job_state
from core.db.tables import worker as workers
from core.db.upsert import insert_or_update
from core.lifecycle import Status

FORGET_SECONDS: Final = 180.0  # a worker that was silent for so long is not listed any more


@dataclass(frozen=True, slots=True)
class Tally:
    """Slots of one kind: how many are in service, and how many of those serve nobody. `out` has the reason of each slot
    that is out of service.
    """

    slots: int
    free: int
    out: tuple[str, ...] = ()

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.slots + other.slots, self.free + other.free, self.out + other.out)


@dataclass(frozen=True, slots=True)
class SlotState:
    """A slot with a GPU, or one of any kind that is out of service.

    `device` is its name in CUDA_VISIBLE_DEVICES: the UUID, where the driver gives one; empty for a slot that computes
    on the CPU. `since`: when it came into service or went out of it, by the clock of its worker. `reason` (one of
    worker.devices.report.REMEDIES) and `detail` are there while it is out of service.
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
    """What a worker says of itself; `slots` by kind (cpu, gpu), `plugins` with their versions. Who asks fills in the
    rest.
    """

    id: str
    slots: Mapping[str, Tally]
    states: tuple[SlotState, ...] = ()
    plugins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as people see it: `silent` seconds since its last report, and the reader's own jobs on it. `states` is
    empty for a worker of an earlier release.
    """

    id: str
    host: str
    pid: int
    release: str
    slots: dict[str, Tally]
    started_at: float
    seen_at: float
    silent: float
    jobs: tuple[str, ...]
    states: tuple[SlotState, ...] = ()
    plugins: frozenset[str] = frozenset()


def report_worker(db: Database, report: WorkerReport) -> None:
    """Write the row of this process's worker, by the database's clock."""
    fresh = {
        # No more keys than these: the release before takes none that it does not know.
        "slots": {kind: {"slots": tally.slots, "free": tally.free} for kind, tally in report.slots.items()},
        "devices": [asdict(state) for state in report.states],
        "plugins": dict(report.plugins),
        "seen_at": now(),
    }
    about = {
        "id": report.id,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "release": metadata.version("basin-server"),
        "started_at": now(),
    }
    with db.write() as connection:
        insert_or_update(connection, workers, about | fresh, fresh)


def forget_worker(db: Database, worker_id: str) -> None:
    """The worker has stopped in good order."""
    with db.write() as connection:
        connection.execute(delete(workers).where(workers.c.id == worker_id))


def forget_silent(db: Database) -> int:
    """Drop the rows of workers that have not been heard of for a while; one that lives after all writes a new row.

    A report from the future is from before the clock was set back: it would stay for as long as that.
    """
    silent = func.abs(now() - workers.c.seen_at) > FORGET_SECONDS
    with db.read() as connection:
        if connection.execute(select(workers.c.id).where(silent).limit(1)).first() is None:
            return 0
    with db.write() as connection:
        return connection.execute(delete(workers).where(silent)).rowcount


def list_workers(db: Database, project: str) -> list[WorkerView]:
    """All workers, in the order of their names; of the jobs on them only this project's."""
    row, state = workers.c, job_state.c
    columns = (row.id, row.host, row.pid, row.release, row.slots, row.devices, row.plugins, row.started_at, row.seen_at)
    mine = (
        select(state.worker, state.job_id)
        .where(state.project == project, state.status == Status.RUNNING.value)
        .order_by(state.job_id)
    )
    with db.read() as connection:
        found = connection.execute(select(*columns, (now() - row.seen_at).label("silent")).order_by(row.id)).all()
        jobs: dict[str, tuple[str, ...]] = {}
        for name, job_id in connection.execute(mine):
            jobs[name] = (*jobs.get(name, ()), job_id)
    views = []
    for one in found:
        told = one._asdict()
        states = _states(told.pop("devices"))
        told["slots"] = _tallies(one.slots, states)
        told["plugins"] = frozenset(one.plugins or ())
        views.append(WorkerView(**told, jobs=jobs.get(one.id, ()), states=states))
    return views


def _states(documents: Sequence[Mapping[str, Any]] | None) -> tuple[SlotState, ...]:
    return tuple(SlotState.from_row(document) for document in documents or ())


def _tallies(counts: Mapping[str, Mapping[str, int]], states: Iterable[SlotState]) -> dict[str, Tally]:
    """The columns `slots` and `devices` as one."""
    tallies = {kind: Tally(count["slots"], count["free"]) for kind, count in counts.items()}
    for state in states:
        if not state.in_service:
            before = tallies.get(state.kind, Tally(0, 0))
            tallies[state.kind] = replace(before, out=(*before.out, state.reason or "failed"))
    return tallies


def count_slots(connection: Connection, lost_after: float) -> dict[str, Tally]:
    """The slots of all workers that have reported in the last `lost_after` seconds, by kind."""
    row = workers.c
    query = select(row.slots, row.devices).where(now() - row.seen_at <= lost_after)
    total: dict[str, Tally] = {}
    for slots, devices in connection.execute(query):
        _add(total, _tallies(slots, _states(devices)))
    return total


def kinds_seen(connection: Connection, within: float = FORGET_SECONDS) -> frozenset[str]:
    """The kinds of slots of the workers that have reported in the last `within` seconds."""
    query = select(workers.c.slots).where(now() - workers.c.seen_at <= within)
    return frozenset(kind for slots in connection.execute(query).scalars() for kind in slots)


def live_workers(views: Iterable[WorkerView], lost_after: float) -> tuple[WorkerView, ...]:
    """Those that were heard of lately."""
    return tuple(view for view in views if is_live(view, lost_after))


def sum_slots(views: Iterable[WorkerView]) -> dict[str, Tally]:
    """Their slots, by kind."""
    total: dict[str, Tally] = {}
    for view in views:
        _add(total, view.slots)
    return total


def _add(total: dict[str, Tally], more: Mapping[str, Tally]) -> None:
    for kind, tally in more.items():
        total[kind] = total.get(kind, Tally(0, 0)) + tally


def is_live(view: WorkerView, lost_after: float) -> bool:
    """Whether it was heard of lately; a report from the future is one from before the clock was set back."""
    return view.silent <= lost_after
