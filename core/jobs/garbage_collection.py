"""Garbage collection, the slow chores of the reconciler: delete rows and objects that are no longer needed."""

import logging
import time
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, delete, select, update

from core.db.session import Database, database_now
from core.db.tables import checkpoint, idempotency, job, service_state
from core.db.upsert import insert_if_absent
from core.jobs.changes import NOBODY
from core.jobs.checkpoints.missing import revive_missing
from core.jobs.datasets.removal import DatasetChores
from core.jobs.health.workers import delete_silent_workers
from core.settings import Settings
from core.store.base import Store, StoredObject
from core.store.keys import JOBS, folder_of

log = logging.getLogger(__name__)

BATCH: Final = 100  # checkpoints, or jobs, in one pass
_PATIENCE: Final = 1.0  # seconds of deleting in one round
_SWEEP_EVERY: Final = 60  # rounds of garbage collection


class GarbageCollector:
    """One round every `care_seconds`, run by the first reconciler that finds it due."""

    def __init__(self, db: Database, store: Store, settings: Settings, *, batch: int = BATCH) -> None:
        self._db = db
        self._store = store
        self._settings = settings
        self._batch = batch
        self._datasets = DatasetChores(db, store, batch=batch)
        self.behind = False  # the last round left something to delete

    def run_due_chores(self) -> None:
        """Run the chores that are due.

        A round deletes for a short time only, and the next one continues, so that leases never wait.
        """
        due = self._is_due("care", self._settings.care_seconds)
        if due or self.behind:
            until = time.monotonic() + _PATIENCE
            # Cleared first: a call to an unavailable store may take seconds to fail, and must not run in every tick.
            self.behind = False
            while (behind := self.delete_pending_checkpoints() == self._batch) and time.monotonic() < until:
                pass
            self.behind = behind
        if due:
            self.delete_removed_jobs()
            self.expire_idempotency_keys()
            delete_silent_workers(self._db)
            revive_missing(self._db, self._store)
            self._datasets.run()
        if self._is_due("sweep", self._settings.care_seconds * _SWEEP_EVERY):
            self.delete_orphan_objects()
            self._datasets.sweep_orphans(self._settings.orphan_seconds)

    def delete_pending_checkpoints(self) -> int:
        """Delete marked checkpoints: the objects first, then the rows, so that a kill in between loses no object."""
        query = select(checkpoint.c.id, checkpoint.c.key).where(checkpoint.c.status == "doomed").limit(self._batch)
        with self._db.read() as connection:
            doomed = connection.execute(query).all()
        for _, key in doomed:
            for stored in list(self._store.list(f"{key}/")):
                self._store.delete(stored.key)
        if doomed:
            with self._db.write() as connection:
                connection.execute(delete(checkpoint).where(checkpoint.c.id.in_([id_ for id_, _ in doomed])))
        return len(doomed)

    def delete_removed_jobs(self) -> int:
        """Delete the rows of deleted jobs that have no checkpoint left; one transaction each."""
        left = select(checkpoint.c.id).where(checkpoint.c.job_id == job.c.id).exists()
        query = select(job.c.id).where(job.c.project == NOBODY, ~left).limit(self._batch)
        with self._db.read() as connection:
            deleted = connection.execute(query).scalars().all()
        for job_id in deleted:
            with self._db.write() as connection:
                connection.execute(delete(job).where(job.c.id == job_id))
        return len(deleted)

    def expire_idempotency_keys(self) -> int:
        """Delete idempotency keys that are older than `keep_keys_seconds`."""
        expired = idempotency.c.created_at < database_now() - self._settings.keep_keys_seconds
        with self._db.write() as connection:
            return connection.execute(delete(idempotency).where(expired)).rowcount

    def delete_orphan_objects(self) -> int:
        """Delete objects without a row (their writer ended before it wrote one), older than `orphan_seconds`."""
        self._store.remove_unfinished(self._settings.orphan_seconds)
        before = time.time() - self._settings.orphan_seconds
        removed = 0
        # By folder: one query for each checkpoint, and the listing is sorted.
        for folder, objects in groupby(self._store.list(JOBS), key=lambda stored: folder_of(stored.key)):
            old = [stored for stored in objects if stored.modified_at < before]
            if old and not self._has_row(folder):
                removed += self._delete_objects(old)
        return removed

    def _delete_objects(self, objects: list[StoredObject]) -> int:
        for stored in objects:
            log.info("removing %s: no checkpoint owns it", stored.key)
            self._store.delete(stored.key)
        return len(objects)

    def _has_row(self, folder: str) -> bool:
        with self._db.read() as connection:
            return connection.execute(select(checkpoint.c.id).where(checkpoint.c.key == folder)).first() is not None

    def _is_due(self, name: str, every: float) -> bool:
        """Whether the chore is due and this process has claimed it: the row is then advanced for all processes."""
        chore = service_state.c
        with self._db.read() as connection:
            age: Any = connection.execute(
                select(database_now() - chore.at).where(chore.name == name)
            ).scalar_one_or_none()
        if age is not None and 0 <= age < every:
            return False
        with self._db.write() as connection:
            if age is None:
                return insert_if_absent(connection, service_state, name=name, at=database_now())
            return self._claim_chore(connection, name, every)

    def _claim_chore(self, connection: Connection, name: str, every: float) -> bool:
        chore = service_state.c
        stale = (chore.at <= database_now() - every) | (chore.at > database_now())
        moved = connection.execute(update(service_state).where(chore.name == name, stale).values(at=database_now()))
        return moved.rowcount == 1
