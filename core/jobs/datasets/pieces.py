"""The bytes of an upload: pieces that are objects in the store, each recorded by a row unique per offset.

An upload's offset is the end of its last recorded piece. A piece is put into the store first and recorded then, under
the lock of the dataset's row: of several writers at one offset the first is recorded, and the others learn the true
offset. Garbage collection removes objects that were never recorded.
"""

import errno
from collections.abc import Sequence
from typing import ClassVar, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from core.db.session import Database, database_now
from core.db.tables import dataset, upload_piece
from core.errors import BasinError, Conflict, NotFound, TooLarge
from core.jobs.datasets.prepare import submit_prepare
from core.jobs.datasets.quotas import check_datasets
from core.jobs.datasets.rows import DatasetRow, UploadPiece, lock_row, select_rows
from core.jobs.queue.submit import SubmitContext
from core.settings import Limits
from core.store.base import Digest, Store, StoreTransient
from core.store.keys import piece_key

PIECE_BYTES: Final = 8 << 20
MOST_PIECES: Final = 65_536
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class StoreFull(BasinError):  # noqa: N818 - as in core.errors
    """The object store is full; what was sent before is kept, and the upload can continue once there is space."""

    code: ClassVar[str] = "store_full"
    kind = "storage"


class WrongDigest(BasinError):  # noqa: N818 - as in core.errors
    """The bytes are not those that were announced; send them again from the first one."""

    code: ClassVar[str] = "wrong_content"
    kind = "invalid"


class OffsetMismatch(Conflict):
    """The upload continues at another offset."""

    code = "offset_mismatch"

    def __init__(self, offset: int) -> None:
        super().__init__(f"The upload continues at offset {offset}.", extra={"offset": offset})
        self.offset = offset


def find_upload(db: Database, project: str, dataset_id: str) -> DatasetRow:
    """The row of a dataset. Raises NotFound where the project has none of this id."""
    query = select_rows().where(dataset.c.id == dataset_id, dataset.c.project == project)
    with db.read() as connection:
        found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise NotFound("There is no dataset with this id.")
    return DatasetRow(**found)


def store_piece(store: Store, dataset_id: str, offset: int, content: bytes) -> UploadPiece:
    """Put one piece into the store, not recorded yet.

    Raises:
        StoreFull: there is no space.
        StoreTransient, StoreRefused: the store is unavailable.
    """
    key = piece_key(dataset_id, offset)
    try:
        digest: Digest = store.put_bytes(content, key)
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull from error
        raise StoreTransient(f"The object store cannot be written: {error.strerror or error}.") from error
    return UploadPiece(offset, digest.bytes, key, digest.sha256)


def record_pieces(  # noqa: PLR0913 - whose, which, and under which limits
    db: Database,
    project: str,
    dataset_id: str,
    pieces: Sequence[UploadPiece],
    *,
    limits: Limits,
    most_bytes: int,
    keep_seconds: float,
) -> int:
    """Record pieces that follow each other; returns the new offset.

    Raises:
        NotFound: there is no such dataset of this project (any more).
        OffsetMismatch: the first piece is not at the upload's offset, or the upload has ended.
        TooLarge: more than was announced, more than `most_bytes`, or in too many pieces.
        StorageFull: an upload of unknown length would exceed the project's limit.
    """
    with db.write() as connection:
        row = lock_row(connection, project, dataset_id)
        if row.status != "uploading" or pieces[0].offset != row.received:
            raise OffsetMismatch(row.received)
        added = sum(piece.bytes for piece in pieces)
        end = row.received + added
        if end > (most_bytes if row.bytes is None else row.bytes):
            raise TooLarge("More bytes were sent than were announced, or than this service takes.")
        if row.bytes is None:
            check_datasets(connection, project, limits, added, new=0)
        _check_number(connection, dataset_id, len(pieces))
        columns = [
            {
                "dataset_id": dataset_id,
                "offset": each.offset,
                "bytes": each.bytes,
                "key": each.key,
                "sha256": each.sha256,
            }
            for each in pieces
        ]
        connection.execute(insert(upload_piece), columns)
        facts = {"received": end, "expires_at": database_now() + keep_seconds}
        connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(**facts))
    return end


def restart_upload(db: Database, project: str, dataset_id: str) -> DatasetRow:
    """Discard what has arrived of an unfinished upload; garbage collection removes the objects.

    Raises:
        NotFound: there is no such dataset of this project.
        Conflict: the upload has ended.
    """
    with db.write() as connection:
        row = lock_row(connection, project, dataset_id)
        if row.status != "uploading":
            message = f"The dataset is {row.status}: its upload has ended. Another content is another dataset."
            raise Conflict(message, extra={"current_status": row.status})
        if row.received:
            connection.execute(delete(upload_piece).where(upload_piece.c.dataset_id == dataset_id))
            connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(received=0))
    return row


def complete_upload(db: Database, dataset_id: str, entry: SubmitContext, *, at_its_end: bool = False) -> str | None:
    """Queue the preparation once every byte has arrived; returns the job's id. None: bytes are missing, or it is done.

    `at_its_end`: an upload of unknown length ends here.

    Raises:
        NotFound: there is no such dataset of this project.
        QuotaExceeded, StorageFull: no job may be queued now; the upload stays, and the call can be repeated.
    """
    with db.write() as connection:
        row = lock_row(connection, entry.project, dataset_id)
        whole = row.received == row.bytes or (at_its_end and row.bytes is None and row.received > 0)
        if row.status != "uploading" or not whole:
            return None
        connection.execute(update(dataset).where(dataset.c.id == dataset_id).values(bytes=row.received))
        return submit_prepare(connection, row, entry)


def _check_number(connection: Connection, dataset_id: str, more: int) -> None:
    query = select(func.count()).where(upload_piece.c.dataset_id == dataset_id)
    if connection.execute(query).scalar_one() + more > MOST_PIECES:
        raise TooLarge(f"An upload has at most {MOST_PIECES} pieces; send {PIECE_BYTES} bytes and more at once.")
