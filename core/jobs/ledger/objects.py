"""The objects of good checkpoints: they exist, have the recorded sizes and, where requested, the recorded digests."""

from collections.abc import Iterator
from itertools import groupby

from sqlalchemy import select

from core.db.session import Database
from core.db.tables import checkpoint
from core.jobs.ledger.rules import CheckpointLine
from core.store.base import Digest, Store, StoredObject, StoreMissing, StoreUnreadable, digest_of
from core.store.keys import JOBS


class ObjectListing:
    """Sizes of objects, job by job, from one listing: a request for each object would take hours."""

    def __init__(self, store: Store) -> None:
        self._jobs = groupby(store.list(JOBS), key=_job_of)
        self._next: tuple[str, Iterator[StoredObject]] | None = None
        self._begun = False

    def sizes_of(self, job_id: str) -> dict[str, int]:
        """Object key -> bytes. Call it in ascending order of ids: the listing is read only once."""
        if not self._begun:
            self._begun, self._next = True, next(self._jobs, None)
        while self._next is not None and self._next[0] < job_id:
            self._next = next(self._jobs, None)
        if self._next is None or self._next[0] != job_id:
            return {}
        sizes = {stored.key: stored.bytes for stored in self._next[1]}
        self._next = next(self._jobs, None)
        return sizes


def object_problems(
    db: Database, store: Store, row: CheckpointLine, listed: dict[str, int], *, digests: bool
) -> Iterator[tuple[str, str]]:
    """(key, problem). Where the listing shows a problem, object and row are read once more: both may have changed."""
    for file in row.files.values():
        key = f"{row.key}/{file['name']}"
        wanted = Digest(file["sha256"], file["bytes"])
        if listed.get(key) == wanted.bytes and not digests:
            continue
        problem = object_problem(store, key, wanted, digests=digests)
        if problem is not None and _still_good(db, row.id):
            yield key, problem


def object_problem(store: Store, key: str, wanted: Digest, *, digests: bool) -> str | None:
    """What is wrong with an object; None: nothing is."""
    try:
        size = store.size(key)
        if size != wanted.bytes:
            return f"it has {size} bytes instead of {wanted.bytes}"
        if digests and (found := digest_of(store, key)) != wanted:
            return f"its SHA-256 is {found.sha256} instead of {wanted.sha256}"
    except StoreMissing:
        return "it is missing"
    except StoreUnreadable:
        return "it cannot be read"
    return None


def _still_good(db: Database, checkpoint_id: str) -> bool:
    with db.read() as connection:
        query = select(checkpoint.c.status).where(checkpoint.c.id == checkpoint_id)
        return connection.execute(query).scalar_one_or_none() == "good"


def _job_of(stored: StoredObject) -> str:
    return stored.key.removeprefix(JOBS).partition("/")[0]
