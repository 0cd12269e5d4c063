"""The row of a dataset, as one transaction reads it."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Connection, Select, select

from core.db.tables import dataset, upload_piece
from core.errors import NotFound

ID_PREFIX: Final = "ds"


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """What the domain needs to change a dataset; `status` as stored, `bytes` as announced, times in unix seconds."""

    id: str
    project: str
    owner: str
    name: str
    status: str
    format: str
    filename: str | None
    options: dict[str, Any]
    bytes: int | None
    sha256: str | None
    received: int
    version: str | None
    source: dict[str, Any] | None
    job_id: str | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class UploadPiece:
    """Bytes `offset` to `offset + bytes` of an upload are the object `key`. Parts sent by link have no `sha256`."""

    offset: int
    bytes: int
    key: str
    sha256: str | None


def select_rows() -> Select[Any]:
    """The columns of DatasetRow."""
    return select(*(dataset.c[field.name] for field in fields(DatasetRow)))


def as_row(found: Mapping[str, Any]) -> DatasetRow:
    return DatasetRow(**found)


def find_row(connection: Connection, dataset_id: str) -> DatasetRow | None:
    """The row of a dataset of any project; None: there is none."""
    found = connection.execute(select_rows().where(dataset.c.id == dataset_id)).mappings().one_or_none()
    return None if found is None else as_row(dict(found))


def lock_row(connection: Connection, project: str, dataset_id: str, *, exclusive: bool = True) -> DatasetRow:
    """The row of a project's dataset, locked until the end of the transaction.

    Raises:
        NotFound: there is none.
    """
    query = select_rows().where(dataset.c.id == dataset_id, dataset.c.project == project)
    found = connection.execute(query.with_for_update(read=not exclusive)).mappings().one_or_none()
    if found is None:
        raise NotFound("There is no dataset with this id.")
    return as_row(dict(found))


def list_pieces(connection: Connection, dataset_id: str) -> list[UploadPiece]:
    """The pieces of an upload, in order: end to end they are its bytes."""
    row = upload_piece.c
    query = select(row.offset, row.bytes, row.key, row.sha256).where(row.dataset_id == dataset_id)
    return [UploadPiece(*found) for found in connection.execute(query.order_by(row.offset))]
