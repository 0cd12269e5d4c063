"""The fleet: each worker writes a row about itself every few seconds. Nothing is decided by it; people read it."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Final

from sqlalchemy import Connection, delete, func, select

from core.db.session import Database, now
from core.db.tables import job_state
from core.db.tables import worker as workers
from core.db.upsert import insert_or_update
from core.lifecycle import Status

FORGET_SECONDS: Final = 180.0  # a worker that was silent for so long is not listed any more


@dataclass(frozen=True, slots=True)
class Tally:
    """Slots of one kind: how many there are, and how many serve nobody."""

    slots: int
    free: int

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.slots + other.slots, self.free + other.free)


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What a worker says of itself; `slots` by kind (cpu, gpu). Who asks fills in the rest."""

    id: str
    slots: Mapping[str, Tally]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker as people see it: `silent` seconds since its last report, and the reader's own jobs on it."""

    id: str
    host: str
    pid: int
    release: str
    slots: dict[str, Tally]
    started_at: float
    seen_at: float
    silent: float
    jobs: tuple[str, ...]


def report_worker(db: Database, report: WorkerReport) -> None:
    """Write the row of this process's worker, by the database's clock."""
    fresh = {
        "slots": {kind: {"slots": tally.slots, "free": tally.free} for kind, tally in report.slots.items()},
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


def list_workers(db: Database, owner: str) -> list[WorkerView]:
    """All workers, in the order of their names; of the jobs on them only this owner's."""
    row, state = workers.c, job_state.c
    columns = (row.id, row.host, row.pid, row.release, row.slots, row.started_at, row.seen_at)
    mine = (
        select(state.worker, state.job_id)
        .where(state.owner == owner, state.status == Status.RUNNING.value)
        .order_by(state.job_id)
    )
    with db.read() as connection:
        found = connection.execute(select(*columns, (now() - row.seen_at).label("silent")).order_by(row.id)).all()
        jobs: dict[str, tuple[str, ...]] = {}
        for name, job_id in connection.execute(mine):
            jobs[name] = (*jobs.get(name, ()), job_id)
    views = []
    for one in found:
        slots = {kind: Tally(**counts) for kind, counts in one.slots.items()}
        views.append(WorkerView(**{**one._asdict(), "slots": slots}, jobs=jobs.get(one.id, ())))
    return views


def kinds_seen(connection: Connection, within: float = FORGET_SECONDS) -> frozenset[str]:
    """The kinds of slots of the workers that have reported in the last `within` seconds."""
    query = select(workers.c.slots).where(now() - workers.c.seen_at <= within)
    return frozenset(kind for slots in connection.execute(query).scalars() for kind in slots)


def fleet(views: list[WorkerView], lost_after: float) -> dict[str, Tally]:
    """The slots of all workers that live, by kind."""
    total: dict[str, Tally] = {}
    for view in views:
        if is_live(view, lost_after):
            for kind, tally in view.slots.items():
                total[kind] = total.get(kind, Tally(0, 0)) + tally
    return total


def is_live(view: WorkerView, lost_after: float) -> bool:
    """Whether it was heard of lately; a report from the future is one from before the clock was set back."""
    return view.silent <= lost_after
