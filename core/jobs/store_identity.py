"""Whether the object store is the one that this database was made with.

A folder that is not mounted, was emptied or moved, another bucket or prefix: none of them says of itself that something
is wrong, they merely have no objects. So the store holds a marker with a random id, and the database holds the same id.
A store without the marker, or with another id, is *away*, as an S3 server is that does not answer.

How the id comes to be, once for a database:

1. Look for reasons to trust the store: one good checkpoint that the database names is in the store with its recorded
   digest (a release without markers wrote it); or the database names none, and the store is not marked and in use, as
   that of another database is. Else nothing is written, and the store is away.
2. In one transaction: insert the one row of `store_identity`. Rivals wait at its primary key until this transaction is
   over, and then adopt what stands there.
3. Within it, write the marker, create-only. If there is one already, its id goes into the row instead of ours.
4. Commit.

A kill before 3, or an error at 3, leaves nothing: the row is rolled back. A kill between 3 and 4 leaves a marker
without a row; whoever comes next goes through 1 again and adopts that marker at 3. After 4 both are there, and neither
changes again, but for `basin doctor --adopt-store`, which writes the database's id into a store.
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

_SAMPLE: Final = 10  # of the oldest checkpoints, and of the newest: a backup lacks the newest, retention the oldest


class WrongStore(StoreTransient):
    """The object store is not the one that this database was made with; `basin doctor` says what to do."""

    code: ClassVar[str] = "store_unavailable"


def open_identified_store(settings: Settings, db: Database, *, read_only: bool = False) -> "IdentifiedStore":
    """The store of the settings, which is away unless it is the one of this database. Nothing is asked of either yet.

    Raises:
        Misconfigured: as `open_store` does.
    """
    return IdentifiedStore(open_store(settings), db, where=store_place(settings), read_only=read_only)


def store_place(settings: Settings) -> str:
    """The folder or the bucket, for operators; there is no secret in it."""
    url = settings.resolved_store_url()
    return str(folder_of_url(url) or url)


def recorded_store_id(db: Database) -> str | None:
    """The id that the store's marker must hold; None: this database has met no store yet."""
    with db.read() as connection:
        return connection.execute(select(store_identity.c.id)).scalar_one_or_none()


def establish_store_id(db: Database, store: Store, *, adopting: bool = False) -> str:
    """The id of the database, made together with the store's marker if there is none yet; see the top of this file.

    `adopting`: an operator says that it may be the store that another database was made with.

    Raises:
        WrongStore: there is no reason to take this store for the one of this database.
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
    """Whether it belongs to a database whose checkpoints are in it; a sweep would take them for garbage."""
    return read_marker(store) is not None and any(True for _ in store.list(JOBS))


def _is_there(store: Store, key: str, files: dict[str, Any]) -> bool:
    """By the smallest of its files, which stands for the others."""
    file = min(files.values(), key=lambda each: int(each["bytes"]))
    try:
        return digest_of(store, f"{key}/{file['name']}") == Digest(file["sha256"], int(file["bytes"]))
    except (StoreMissing, StoreUnreadable):
        return False


class IdentifiedStore:
    """A Store that is away unless its marker holds the database's id.

    The marker is looked at when it matters: before and after a write, before a removal, around a listing, and *after*
    an object was not found, since a store that went away has none either. What is found needs no look: keys are random,
    no other store has them. With `read_only`, a database without an id makes none, and nothing is checked.
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
        """Come back if the store is the one of this database.

        Raises:
            WrongStore: it is not; what can be told to anybody is in the message, the place is in the log.
            StoreTransient, StoreRefused: it cannot be asked.
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
        self.verify_identity()  # else the end of the listing may be that of the store

    def remove_unfinished(self, older_than: float) -> int:
        self.verify_identity()
        return self._store.remove_unfinished(older_than)

    def presigned_url(self, key: str, seconds: int) -> str | None:
        url = self._store.presigned_url(key, seconds)
        if url is not None:
            self.verify_identity()
        return url

    def ping(self) -> None:
        self._store.ping()
        self.verify_identity()
