"""Uploads that go to the object store directly, by presigned URLs: each part is an object, as a piece is.

The service keeps no list of the links that it gave. Who has put the parts says which keys they have, and the objects
are looked at before they are recorded; what was never recorded is removed by garbage collection.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.errors import Conflict
from core.jobs.datasets.rows import DatasetRow, UploadPiece
from core.store.base import Store, StoreMissing
from core.store.keys import UPLOADS, check_key, piece_key

PART_BYTES: Final = 64 << 20
MOST_PARTS: Final = 100  # of one answer
LINK_SECONDS: Final = 3600


class NoLinks(Conflict):
    """The object store of this service takes no uploads by link; send the bytes to the service."""

    code = "no_links"


class PartMissing(Conflict):
    """A part is not in the object store."""

    code = "part_missing"


@dataclass(frozen=True, slots=True)
class UploadLink:
    """Where bytes `offset` to `offset + bytes` of the upload are to be put."""

    offset: int
    bytes: int
    key: str
    url: str


def make_links(store: Store, row: DatasetRow, most: int) -> list[UploadLink]:
    """Links for at most `most` parts, from the upload's offset on.

    Raises:
        Conflict: the upload has ended, or its length was not announced.
        NoLinks: the store has none.
    """
    if row.status != "uploading" or row.bytes is None:
        message = "Links are for an upload that has not ended, and whose `bytes` were announced."
        raise Conflict(message, extra={"current_status": row.status})
    found = []
    for offset in range(row.received, row.bytes, PART_BYTES)[:most]:
        key = piece_key(row.id, offset)
        url = store.presigned_upload(key, LINK_SECONDS)
        if url is None:
            raise NoLinks
        found.append(UploadLink(offset, min(PART_BYTES, row.bytes - offset), key, url))
    return found


def find_parts(store: Store, dataset_id: str, parts: Sequence[tuple[int, str]]) -> list[UploadPiece]:
    """The parts (offset, key) as pieces, with the sizes that they have in the store.

    Raises:
        PartMissing: one is not there, is none of this dataset, or does not begin where the one before ends.
    """
    found: list[UploadPiece] = []
    for offset, key in sorted(parts):
        follows = not found or offset == found[-1].offset + found[-1].bytes
        if not (follows and key.startswith(f"{UPLOADS}{dataset_id}/{offset:016d}-")):
            raise PartMissing(f"The part at offset {offset} does not follow the one before.", extra={"offset": offset})
        try:
            size = store.size(check_key(key))
        except StoreMissing:
            raise PartMissing(f"The part at offset {offset} was not put.", extra={"offset": offset}) from None
        found.append(UploadPiece(offset, size, key, None))
    return found
