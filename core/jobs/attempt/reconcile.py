"""The reconciler repairs the state of jobs. It is a thread of every api and every worker; any one of them is enough.
Every `tick_seconds` each thread reads when the last round was; the first that finds a round due runs it.

One tick: GAP and LOST (leases), WANT (desired states of jobs that no worker runs), SEND (hints), CARE
(garbage_collection.py). Each part is one small transaction, so several reconcilers and a kill at any moment do no harm.
"""

import logging
import math
import threading
from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select, update

from core.db.session import Database, database_now, is_transient
from core.db.tables import job_state, service_state
from core.db.upsert import insert_if_absent
from core.jobs.attempt.finish import revoke_attempt
from core.jobs.attempt.state import as_state, select_state
from core.jobs.garbage_collection import GarbageCollector
from core.jobs.health.counters import TAKEOVERS, add_count
from core.jobs.health.readiness import reconciler_lag
from core.jobs.verbs import apply_desired
from core.lifecycle import Desired, Status
from core.logs import log_context
from core.queue import Hints
from core.settings import Settings
from core.store.base import Store, StoreTransient

log = logging.getLogger(__name__)

_BATCH: Final = 50
_PATIENCE: Final = 3.0
# Enough for every slot of a small fleet; a worker that receives a hint claims jobs until none is queued.
_HINTS: Final = 20
# Ticks between two checks while another process runs the rounds: if that process ends, a round comes before a gap.
_LOOK: Final = 1.5


class Reconciler:
    """`tick` runs one round. `start` runs rounds in a thread, whenever no other process has; errors do not end it."""

    def __init__(self, db: Database, store: Store, hints: Hints, settings: Settings) -> None:
        self._db = db
        self._hints = hints
        self._settings = settings
        self._care = GarbageCollector(db, store, settings)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No more ticks; the present one gets a few seconds, and may be cut off anywhere after that."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)

    def tick(self) -> None:
        """One round of repairs."""
        self.reclaim_expired_leases()
        self.apply_desired_states()
        self.send_hints()
        self._care.run_due_chores()

    def _run(self) -> None:
        tick = pause = self._settings.tick_seconds
        while not self._stopping.wait(pause):
            try:
                pause = tick if self._run_if_due() else _LOOK * tick
            except Exception as error:
                if is_transient(error) or isinstance(error, StoreTransient):
                    log.warning("the reconciler will try again: %s", error)
                else:
                    log.exception("a round of the reconciler failed; it will try again")
                pause = 2 * tick  # others first: it may work there

    def _run_if_due(self) -> bool:
        """Run one round unless another process has just run one: at any time one process repairs."""
        with self._db.read() as connection:
            lag = reconciler_lag(connection)
        due = lag is None or not 0 <= lag < self._settings.tick_seconds
        if due:
            self.tick()
        elif self._care.behind:
            self._care.run_due_chores()
        return due

    def reclaim_expired_leases(self) -> int:
        """GAP and LOST; returns how many jobs were taken from lost workers.

        Both run in one transaction that holds the "tick" row. A reconciler that was suspended between the two during a
        long outage would otherwise find every lease expired and take all jobs from healthy workers.
        """
        with self._db.write() as connection:
            found = self._record_tick(connection)
            if found is None:
                return 0
            silence, moment = found
            if not 0 <= silence <= self._settings.gap_seconds:
                # No heartbeat could arrive, or the clock jumped (backwards too: leases would then last for hours).
                log.info("no reconciler ran for %.1f s: leases are extended", silence)
                self._extend_leases(connection, moment)
            return self._requeue_lost(connection)

    def _record_tick(self, connection: Connection) -> tuple[float, float] | None:
        """Seconds since the last tick of any reconciler, and the time; None while another one holds the "tick" row.

        The first tick of a new database is a gap.
        """
        tick = service_state.c
        query = select(tick.at, database_now()).where(tick.name == "tick").with_for_update(skip_locked=True)
        found = connection.execute(query).one_or_none()
        if found is not None:
            connection.execute(update(service_state).where(tick.name == "tick").values(at=database_now()))
            return float(found[1] - found[0]), float(found[1])
        # Locked or absent. An insert would wait for the holder of the lock: insert only a row that is really absent.
        if connection.execute(select(tick.at).where(tick.name == "tick")).first() is not None:
            return None
        moment = float(connection.execute(select(database_now())).scalar_one())
        return (
            (math.inf, moment) if insert_if_absent(connection, service_state, name="tick", at=database_now()) else None
        )

    def _extend_leases(self, connection: Connection, moment: float) -> None:
        """Extend the leases of workers that could send no heartbeat: by one lease, and only once until the next one.

        Without this limit a machine that stalls repeatedly would keep the jobs of dead workers for ever. A worker that
        has sent a heartbeat since the gap needs no extension, and gets one at the next gap.
        """
        row, until = job_state.c, moment + self._settings.lease_seconds
        unbeaten = and_(
            row.lease_until < until - self._settings.beat_seconds,
            row.lease_until.is_distinct_from(row.spared_until),
        )
        connection.execute(
            update(job_state)
            # Later than any lease from now on: the clock went back.
            .where(row.status == Status.RUNNING.value, or_(unbeaten, row.lease_until > until))
            .values(lease_until=until, spared_until=until),
        )

    def _requeue_lost(self, connection: Connection) -> int:
        query = (
            select_state()
            .where(job_state.c.status == Status.RUNNING.value, job_state.c.lease_until < database_now())
            .order_by(job_state.c.lease_until)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        lost = [as_state(row) for row in connection.execute(query).all()]
        for state in lost:
            with log_context(job_id=state.job_id, attempt=state.attempt):
                log.warning("job %s: attempt %s was lost", state.job_id, state.attempt)
            revoke_attempt(connection, state, cause="worker lost", lost=True, max_losses=self._settings.max_losses)
        add_count(connection, TAKEOVERS, len(lost))
        return len(lost)

    def apply_desired_states(self) -> int:
        """WANT: apply the desired states of jobs that no worker runs; returns how many were applied."""
        row = job_state.c
        unmet = or_(
            and_(row.status == Status.QUEUED.value, row.desired != Desired.RUN.value),
            and_(row.status == Status.PAUSED.value, row.desired != Desired.PAUSE.value),
        )
        if not self._any_job(unmet):
            return 0
        with self._db.write() as connection:
            query = select_state().where(unmet).limit(_BATCH).with_for_update(skip_locked=True)
            return sum(apply_desired(connection, as_state(row)) for row in connection.execute(query).all())

    def send_hints(self) -> int:
        """SEND: hints for queued jobs that have none, or an old one; returns for how many.

        The row is marked before the hint leaves, after the commit: a hint that is lost is sent again later.
        """
        row = job_state.c
        # In the future: the clock went back.
        unsent = and_(
            row.status == Status.QUEUED.value,
            or_(
                row.published_at.is_(None),
                row.published_at < database_now() - self._settings.hint_after_seconds,
                row.published_at > database_now(),
            ),
        )
        if not self._any_job(unsent):
            return 0
        with self._db.write() as connection:
            query = (
                select(row.job_id, row.needs)
                .where(unsent)
                .order_by(row.rank)
                .limit(_HINTS)
                .with_for_update(skip_locked=True)
            )
            found = connection.execute(query).all()
            ids = [job_id for job_id, _ in found]
            connection.execute(update(job_state).where(row.job_id.in_(ids)).values(published_at=database_now()))
        for needs, count in Counter(needs for _, needs in found).items():
            for _ in range(count):
                self._hints.send(needs)
        return len(found)

    def _any_job(self, condition: Any) -> bool:
        """Whether a job fulfils the condition. A plain read, so that an idle service opens no write transactions."""
        with self._db.read() as connection:
            return connection.execute(select(job_state.c.job_id).where(condition).limit(1)).first() is not None
