"""Deleting datasets: their owner's request, and the chores that remove what no row uses any more.

A deleted row has no project until the chores have removed it. An object is removed once no row names it. Rows of
several projects may have one version: its objects go with the last of them.
"""

import logging
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Final

from sqlalchemy import Connection, delete, select, update

from core.db.session import Database, database_now
from core.db.tables import dataset, dataset_version, job, job_state, upload_piece
from core.db.upsert import insert_if_absent
from core.errors import Conflict
from core.jobs.changes import NOBODY
from core.jobs.datasets.prepare import KEEP_PIECES_SECONDS
from core.jobs.datasets.rows import lock_row
from core.jobs.datasets.use import live_users
from core.jobs.verbs import cancel_open_job
from core.lifecycle import TERMINAL, Status
from core.store.base import Store, StoredObject
from core.store.keys import DATASETS, UPLOADS, dataset_key, folder_of

log = logging.getLogger(__name__)

_ENDED: Final = [status.value for status in TERMINAL]
_MOST_KEYS: Final = 500  # in one query
MOST_NAMED: Final = 5  # jobs in a message


def delete_dataset(db: Database, project: str, dataset_id: str) -> None:
    """Delete a dataset: its project no longer sees it, and a preparation is cancelled.

    Raises:
        NotFound: there is no such dataset of this project.
        Conflict: jobs that have not ended need it; `extra` holds their ids as `needed_by`.
    """
    with db.write() as connection:
        row = lock_row(connection, project, dataset_id)
        if users := live_users(connection, dataset_id):
            more = f" and {len(users) - MOST_NAMED:,} more" if len(users) > MOST_NAMED else ""
            message = f"Jobs that have not ended need this dataset: {', '.join(users[:MOST_NAMED])}{more}. "
            message += "Cancel them, or wait."
            raise Conflict(message, extra={"current_status": row.status, "needed_by": users})
        if row.job_id is not None:
            cancel_open_job(connection, row.job_id)
        hidden = update(dataset).where(dataset.c.id == dataset_id)
        connection.execute(hidden.values(project=NOBODY, owner=NOBODY))


class DatasetChores:
    """What garbage collection does about datasets; each method handles at most `batch` rows and can be repeated."""

    def __init__(self, db: Database, store: Store, *, batch: int) -> None:
        self._db, self._store, self._batch = db, store, batch

    def run(self) -> None:
        """All chores whose objects are known by rows."""
        self.settle_ended()
        self.expire_uploads()
        self.expire_pieces()
        self.remove_deleted()
        self.doom_unused_versions()
        self.remove_doomed_versions()

    def settle_ended(self) -> int:
        """Store the end of preparations that ended without a result: the worker was lost, or a user cancelled it."""
        row = dataset.c
        query = (
            select(row.id, row.job_id, job_state.c.status, job.c.error, job.c.finished_at)
            .join(job, job.c.id == row.job_id)
            .join(job_state, job_state.c.job_id == row.job_id)
            .where(row.status == "queued", job_state.c.status.in_(_ENDED))
            .limit(self._batch)
        )
        with self._db.read() as connection:
            ended = connection.execute(query).all()
        for found in ended:
            status = "cancelled" if found.status == Status.CANCELLED.value else "failed"
            same = (row.id == found.id) & (row.job_id == found.job_id) & (row.status == "queued")
            facts = {"status": status, "error": found.error, "finished_at": found.finished_at}
            expires = database_now() + KEEP_PIECES_SECONDS
            with self._db.write() as connection:
                connection.execute(update(dataset).where(same).values(**facts, expires_at=expires))
        return len(ended)

    def expire_uploads(self) -> int:
        """Hide uploads that have not continued for too long."""
        row = dataset.c
        late = (row.status == "uploading") & (row.expires_at < database_now()) & (row.project != NOBODY)
        with self._db.write() as connection:
            return connection.execute(update(dataset).where(late).values(project=NOBODY, owner=NOBODY)).rowcount

    def expire_pieces(self) -> int:
        """Remove the uploaded bytes of datasets that were prepared long enough ago."""
        row = dataset.c
        query = select(row.id).where(row.status != "uploading", row.expires_at < database_now()).limit(self._batch)
        with self._db.read() as connection:
            late = connection.execute(query).scalars().all()
        for dataset_id in late:
            with self._db.write() as connection:
                mine = select(row.id).where(row.id == dataset_id, row.expires_at < database_now())
                if connection.execute(mine.with_for_update()).first() is None:
                    continue  # it is prepared again
                keys = _forget_pieces(connection, dataset_id)
                connection.execute(update(dataset).where(row.id == dataset_id).values(expires_at=None))
            self._delete_unnamed(keys)
        return len(late)

    def remove_deleted(self) -> int:
        """Remove the rows and pieces of deleted datasets whose preparation has ended."""
        row, state = dataset.c, job_state.c
        over = row.job_id.is_(None) | state.status.is_(None) | state.status.in_(_ENDED)
        query = select(row.id, row.job_id).outerjoin(job_state, state.job_id == row.job_id)
        with self._db.read() as connection:
            deleted = connection.execute(query.where(row.project == NOBODY, over).limit(self._batch)).all()
        for dataset_id, job_id in deleted:
            with self._db.write() as connection:
                # A correction that copies the pieces now holds the row; afterwards it names their objects too.
                connection.execute(select(row.id).where(row.id == dataset_id).with_for_update())
                keys = _forget_pieces(connection, dataset_id)
                connection.execute(delete(dataset).where(row.id == dataset_id))
                _hide_job(connection, job_id)
            self._delete_unnamed(keys)
        return len(deleted)

    def doom_unused_versions(self) -> int:
        """Mark versions that no dataset has; from then on none can begin to use them."""
        version = dataset_version.c
        used = select(dataset.c.id).where(dataset.c.version == version.version).exists()
        free = version.doomed_at.is_(None) & ~used
        with self._db.read() as connection:
            found = connection.execute(select(version.version).where(free).limit(self._batch)).scalars().all()
        for each in found:
            with self._db.write() as connection:
                # The lock first: a preparation that holds it has named the version when it lets go.
                connection.execute(select(version.version).where(version.version == each).with_for_update())
                mine = update(dataset_version).where(version.version == each, free)
                connection.execute(mine.values(doomed_at=database_now()))
        return len(found)

    def remove_doomed_versions(self) -> int:
        """Remove the objects of marked versions, then the marks."""
        version = dataset_version.c
        query = select(version.version).where(version.doomed_at.is_not(None)).limit(self._batch)
        with self._db.read() as connection:
            doomed = connection.execute(query).scalars().all()
        for each in doomed:
            for stored in list(self._store.list(dataset_key(each, ""))):
                if not self._is_doomed(each):
                    break  # another process has ended this, and the version may be written again
                self._store.delete(stored.key)
            else:
                with self._db.write() as connection:
                    mark = (version.version == each) & version.doomed_at.is_not(None)
                    connection.execute(delete(dataset_version).where(mark))
        return len(doomed)

    def sweep_orphans(self, older_than: float) -> int:
        """Remove objects that no row names and that are older than this many seconds."""
        before = time.time() - older_than
        removed = 0
        for _, objects in groupby(self._store.list(UPLOADS), key=lambda stored: folder_of(stored.key)):
            old = [stored.key for stored in objects if stored.modified_at < before]
            removed += self._delete_unnamed(old)
        for folder, objects in groupby(self._store.list(DATASETS), key=lambda stored: folder_of(stored.key)):
            removed += self._doom_unknown(folder.removeprefix(DATASETS), list(objects), before)
        return removed

    def _doom_unknown(self, version: str, objects: Sequence[StoredObject], before: float) -> int:
        if any(stored.modified_at >= before for stored in objects):
            return 0
        with self._db.write() as connection:
            unknown = insert_if_absent(connection, dataset_version, version=version, doomed_at=database_now())
        if unknown:
            log.info("removing %s%s: no dataset has it", DATASETS, version)
        return len(objects) if unknown else 0

    def _is_doomed(self, version: str) -> bool:
        query = select(dataset_version.c.doomed_at).where(dataset_version.c.version == version)
        with self._db.read() as connection:
            return connection.execute(query).scalar_one_or_none() is not None

    def _delete_unnamed(self, keys: Sequence[str]) -> int:
        """Delete those of the objects that no piece names."""
        removed = 0
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            with self._db.read() as connection:
                named = set(
                    connection.execute(select(upload_piece.c.key).where(upload_piece.c.key.in_(some))).scalars()
                )
            for key in some:
                if key not in named:
                    self._store.delete(key)
                    removed += 1
        return removed


def _forget_pieces(connection: Connection, dataset_id: str) -> list[str]:
    """Delete the rows of its pieces; returns the keys of their objects."""
    gone = delete(upload_piece).where(upload_piece.c.dataset_id == dataset_id).returning(upload_piece.c.key)
    return list(connection.execute(gone).scalars())


def _hide_job(connection: Connection, job_id: str | None) -> None:
    """Take the prepare job from its project, so that its rows are removed as those of any deleted job."""
    if job_id is not None:
        connection.execute(update(job).where(job.c.id == job_id).values(owner=NOBODY, project=NOBODY))
        connection.execute(update(job_state).where(job_state.c.job_id == job_id).values(owner=NOBODY, project=NOBODY))
