"""The reconciler repairs the world: a thread of it runs in every api and every worker, and any one of them is enough.

One tick: GAP and LOST (leases), WANT (wishes for jobs that nobody runs), SEND (hints), CARE (see care.py). Each part is
one small transaction, so several reconcilers and a kill at any moment do no harm.
"""

import logging
import math
import threading
from collections import Counter
from typing import Any, Final

from sqlalchemy import Connection, and_, or_, select, update

from core.db.session import Database, is_transient, now
from core.db.tables import job_state, service_state
from core.db.upsert import insert_if_absent
from core.jobs.care import Care
from core.jobs.finish import take_back
from core.jobs.state import as_state, select_state
from core.jobs.tally import TAKEOVERS, tally
from core.jobs.verbs import settle
from core.lifecycle import Desired, Status
from core.logs import about
from core.queue import Hints
from core.settings import Settings
from core.store.base import Store, StoreTransient

log = logging.getLogger(__name__)

_BATCH: Final = 50
_PATIENCE: Final = 3.0
# Enough to wake every slot of a small fleet; a worker that wakes serves until nothing waits.
_HINTS: Final = 20


class Reconciler:
    """`tick` does one round; `start` does it every `tick_seconds` in a thread, whatever happens."""

    def __init__(self, db: Database, store: Store, hints: Hints, settings: Settings) -> None:
        self._db = db
        self._hints = hints
        self._settings = settings
        self._care = Care(db, store, settings)
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
        self.leases()
        self.wants()
        self.send()
        self._care.round()

    def _run(self) -> None:
        while not self._stopping.wait(self._settings.tick_seconds):
            try:
                self.tick()
            except Exception as error:
                if is_transient(error) or isinstance(error, StoreTransient):
                    log.warning("the reconciler will try again: %s", error)
                else:
                    log.exception("a round of the reconciler failed; it will try again")

    def leases(self) -> int:
        """GAP or LOST; says how many jobs were taken from lost workers.

        Both in one transaction that holds the "tick" row: a reconciler that sleeps between the two and wakes after a
        long outage would otherwise find every lease expired and take everything away from workers that are fine.
        """
        with self._db.write() as connection:
            silence = self._touch(connection)
            if silence is None:
                return 0
            if not 0 <= silence <= self._settings.gap_seconds:
                # Nobody could beat, or the clock jumped (backwards too, where leases would seem to last for hours).
                log.info("no reconciler ran for %.1f s: all leases start anew", silence)
                self._extend_all(connection)
                return 0
            return self._take_lost(connection)

    def _touch(self, connection: Connection) -> float | None:
        """Seconds since anybody's last tick; None when somebody else is at it. The first tick of all is a gap."""
        tick = service_state.c
        query = select(tick.at, now()).where(tick.name == "tick").with_for_update(skip_locked=True)
        found = connection.execute(query).one_or_none()
        if found is None:
            return math.inf if insert_if_absent(connection, service_state, name="tick", at=now()) else None
        connection.execute(update(service_state).where(tick.name == "tick").values(at=now()))
        return float(found[1] - found[0])

    def _extend_all(self, connection: Connection) -> None:
        connection.execute(
            update(job_state)
            .where(job_state.c.status == Status.RUNNING.value)
            .values(lease_until=now() + self._settings.lease_seconds),
        )

    def _take_lost(self, connection: Connection) -> int:
        query = (
            select_state()
            .where(job_state.c.status == Status.RUNNING.value, job_state.c.lease_until < now())
            .order_by(job_state.c.lease_until)
            .limit(_BATCH)
            .with_for_update(skip_locked=True)
        )
        lost = [as_state(row) for row in connection.execute(query).all()]
        for state in lost:
            with about(job_id=state.job_id, attempt=state.attempt):
                log.warning("job %s: attempt %s was lost", state.job_id, state.attempt)
            take_back(connection, state, cause="worker lost", lost=True, max_losses=self._settings.max_losses)
        tally(connection, TAKEOVERS, len(lost))
        return len(lost)

    def wants(self) -> int:
        """WANT: wishes for jobs that nobody runs; says how many were carried out."""
        row = job_state.c
        unmet = or_(
            and_(row.status == Status.QUEUED.value, row.desired != Desired.RUN.value),
            and_(row.status == Status.PAUSED.value, row.desired != Desired.PAUSE.value),
        )
        if not self._any(unmet):
            return 0
        with self._db.write() as connection:
            query = select_state().where(unmet).limit(_BATCH).with_for_update(skip_locked=True)
            return sum(settle(connection, as_state(row)) for row in connection.execute(query).all())

    def send(self) -> int:
        """SEND: hints for queued jobs that have none, or an old one; says for how many.

        The row is marked before the hint leaves, after the commit: a hint that is lost is sent again later.
        """
        row = job_state.c
        # In the future: the clock went back.
        unsent = and_(
            row.status == Status.QUEUED.value,
            or_(
                row.published_at.is_(None),
                row.published_at < now() - self._settings.hint_after_seconds,
                row.published_at > now(),
            ),
        )
        if not self._any(unsent):
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
            connection.execute(update(job_state).where(row.job_id.in_(ids)).values(published_at=now()))
        for needs, count in Counter(needs for _, needs in found).items():
            for _ in range(count):
                self._hints.send(needs)
        return len(found)

    def _any(self, condition: Any) -> bool:
        """A plain read first: a write transaction every two seconds from every process would be for nothing."""
        with self._db.read() as connection:
            return connection.execute(select(job_state.c.job_id).where(condition).limit(1)).first() is not None
