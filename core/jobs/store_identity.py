"""Whether the object store is the one that this database was made with.

A folder that is not mounted, was emptied or moved, and another bucket or prefix all look like a store without objects.
So the store holds a marker with a random id, and the database holds the same id. A store without the marker, or with
another id, counts as *away* (unavailable), like an S3 server that does not answer.

The id is created once for a database:

1. Check that the store may be trusted: one good checkpoint that the database names is in the store with its recorded
   digest (a release without markers wrote it); or the database names no checkpoint, and the store is not both marked
   and in use, as the store of another database is. Otherwise nothing is written, and the store is away.
2. In one transaction: insert the one row of `store_identity`. Other processes wait at its primary key until this
   transaction ends, and then use the id of that row.
3. Within it, write the marker, create-only. If there is one already, its id is stored in the row instead of ours.
4. Commit.

A kill before 3, or an error at 3, leaves nothing: the row is rolled back. A kill between 3 and 4 leaves a marker
without a row; the next process repeats step 1 and adopts that marker at step 3. After 4 both exist, and neither changes
again, except by `basin doctor --adopt-store`, which writes the database's id into a store.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

from sqlalchemy import select, update

from core.db.session import Database, database_now
from core.db.tables import checkpoint, store_identity
from core.db.upsert import insert_if_absent
from core.settings import Settings
from core.store import open_store
from core.store.base import (
    Digest,
    Store,
    StoredObject,
    StoreMissing,
    StoreTransient,
    StoreUnreadable,
    digest_of,
)
from core.store.keys import JOBS
from core.store.local import folder_of_url
from core.store.marker import MARKER, create_marker, new_store_id, read_marker, replace_marker

log = logging.getLogger(__name__)

_SAMPLE: Final = (
    10  # of the oldest checkpoints, and of the newest: a backup lacks the newest, retention deletes the oldest
)


class WrongStore(StoreTransient):
    """The object store is not the one that this database was made with; `basin doctor` says what to do."""

    code: ClassVar[str] = "store_unavailable"


def open_identified_store(settings: Settings, db: Database, *, read_only: bool = False) -> "IdentifiedStore":
    """The store of the settings, which is away unless it is the one of this database. Neither is accessed yet.

    Raises:
        Misconfigured: as `open_store` does.
    """
    return IdentifiedStore(open_store(settings), db, where=store_place(settings), read_only=read_only)


def store_place(settings: Settings) -> str:
    """The folder or the bucket, for operators; there is no secret in it."""
    url = settings.resolved_store_url()
    return str(folder_of_url(url) or url)


def recorded_store_id(db: Database) -> str | None:
    """The id that the store's marker must hold; None: this database has used no store yet."""
    with db.read() as connection:
        return connection.execute(select(store_identity.c.id)).scalar_one_or_none()


def establish_store_id(db: Database, store: Store, *, adopting: bool = False) -> str:
    """The store id of the database, created together with the store's marker if there is none yet; see the module.

    `adopting`: an operator allows a store that another database has used.

    Raises:
        WrongStore: nothing shows that this store is the one of this database.
        StoreTransient, StoreRefused: the store is away, or does not let us write.
    """
    known = recorded_store_id(db)
    if known is not None:
        return known
    if not has_named_object(db, store, otherwise=lambda: adopting or not _is_in_use(store)):
        raise WrongStore
    made = new_store_id()
    with db.write() as connection:
        if insert_if_absent(connection, store_identity, one=1, id=made, created_at=database_now()):
            there = create_marker(store, made)
            if not there:
                raise StoreTransient(f"The marker of the object store, {MARKER}, cannot be read; remove it.")
            connection.execute(update(store_identity).values(id=there))
            return there
        return str(connection.execute(select(store_identity.c.id)).scalar_one())


def adopt_store(db: Database, store: Store) -> bool:
    """Write the database's id into a store that was moved or restored; False: it is there already.

    Raises:
        WrongStore: the store has none of the objects that the database names.
        StoreTransient, StoreRefused: the store is away, or does not let us write.
    """
    known = recorded_store_id(db)
    if known is None:
        establish_store_id(db, store, adopting=True)
        return True
    if read_marker(store) == known:
        return False
    if not has_named_object(db, store, otherwise=lambda: True):
        raise WrongStore
    replace_marker(store, known)
    return True


def has_named_object(db: Database, store: Store, *, otherwise: Callable[[], bool]) -> bool:
    """Whether one file of a good checkpoint is in the store with its recorded digest; `otherwise` if there is none."""
    row = checkpoint.c
    query = select(row.id, row.key, row.files).where(row.status == "good").limit(_SAMPLE)
    with db.read() as connection:
        named = [*connection.execute(query.order_by(row.id)), *connection.execute(query.order_by(row.id.desc()))]
    return any(_is_there(store, key, files) for _, key, files in named) if named else otherwise()


def _is_in_use(store: Store) -> bool:
    """Whether it holds checkpoints of another database; garbage collection would delete them as orphans."""
    return read_marker(store) is not None and any(True for _ in store.list(JOBS))


def _is_there(store: Store, key: str, files: dict[str, Any]) -> bool:
    """Whether the checkpoint is in the store: only its smallest file is read."""
    file = min(files.values(), key=lambda each: int(each["bytes"]))
    try:
        return digest_of(store, f"{key}/{file['name']}") == Digest(file["sha256"], int(file["bytes"]))
    except (StoreMissing, StoreUnreadable):
        return False


class IdentifiedStore:
    """A Store that is away unless its marker holds the database's id.

    The marker is read before and after a write, before a removal, around a listing, and *after* an object was not
    found, since an unmounted store has no objects either. An object that is found needs no check: keys are random, and
    no other store has them. With `read_only`, a database without an id creates none, and nothing is checked.
    """

    def __init__(self, store: Store, db: Database, *, where: str, read_only: bool = False) -> None:
        self._store = store
        self._db = db
        self._where = where
        self._read_only = read_only
        self._id: str | None = None
        self._away = False

    def __repr__(self) -> str:
        return f"IdentifiedStore({self._store!r})"

    def verify_identity(self) -> None:
        """Return if the store is the one of this database.

        Raises:
            WrongStore: it is not. The message names no folder or bucket; the log does.
            StoreTransient, StoreRefused: the marker cannot be read.
        """
        try:
            self._check_marker()
        except WrongStore as error:
            if not self._away:
                log.warning("the store at %s: %s", self._where, error)
            self._away = True
            raise
        if self._away:
            log.info("the store at %s is the right one again", self._where)
        self._away = False

    def _check_marker(self) -> None:
        if self._id is None:
            self._id = recorded_store_id(self._db) if self._read_only else establish_store_id(self._db, self._store)
        if self._id is not None and read_marker(self._store) != self._id:
            raise WrongStore

    @contextmanager
    def _verify_on_miss(self) -> Iterator[None]:
        try:
            yield
        except (StoreMissing, StoreUnreadable):
            self.verify_identity()
            raise

    def put_file(self, path: Path, key: str) -> Digest:
        self.verify_identity()
        digest = self._store.put_file(path, key)
        self.verify_identity()
        return digest

    def put_bytes(self, content: bytes, key: str) -> Digest:
        self.verify_identity()
        digest = self._store.put_bytes(content, key)
        self.verify_identity()
        return digest

    def fetch(self, key: str, path: Path) -> Digest:
        with self._verify_on_miss():
            return self._store.fetch(key, path)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        with self._verify_on_miss():
            pieces = self._store.open_range(key, start, end)
        return self._checked_pieces(pieces)

    def _checked_pieces(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        with self._verify_on_miss():
            yield from pieces

    def size(self, key: str) -> int:
        with self._verify_on_miss():
            return self._store.size(key)

    def delete(self, key: str) -> None:
        self.verify_identity()
        self._store.delete(key)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self.verify_identity()
        yield from self._store.list(prefix)
        self.verify_identity()  # a store that is unmounted during a listing ends it early

    def remove_unfinished(self, older_than: float) -> int:
        self.verify_identity()
        return self._store.remove_unfinished(older_than)

    def presigned_url(self, key: str, seconds: int) -> str | None:
        url = self._store.presigned_url(key, seconds)
        if url is not None:
            self.verify_identity()
        return url

    def presigned_upload(self, key: str, seconds: int) -> str | None:
        url = self._store.presigned_upload(key, seconds)
        if url is not None:
            self.verify_identity()
        return url

    def ping(self) -> None:
        self._store.ping()
        self.verify_identity()
