"""The marker: one small object that names the database that a store belongs to.

Its name does not begin with a dot, so that a copy of the objects by hand includes it. It is outside the folder of the
jobs' objects, so that garbage collection never removes it.
"""

import re
import secrets
import tempfile
from pathlib import Path
from typing import Final

from core.store.base import Store, StoreMissing, StoreTaken, StoreTransient, StoreUnreadable

MARKER: Final = "basin-store-id"
NO_ID: Final = ""  # of a marker that the service did not write: incomplete, empty, or a folder
_ID: Final = re.compile(r"[0-9a-f]{32}")
_MOST_BYTES: Final = 256


def new_store_id() -> str:
    """A new random id for a marker."""
    return secrets.token_hex(16)


def read_marker(store: Store) -> str | None:
    """The id in the marker; NO_ID where its content is no id; None where there is no marker.

    Raises:
        StoreTransient, StoreRefused: the store does not answer.
    """
    try:
        text = b"".join(store.open_range(MARKER, 0, _MOST_BYTES)).decode(errors="replace").strip()
    except StoreMissing:
        return None
    except StoreUnreadable:
        return NO_ID
    return text if _ID.fullmatch(text) else NO_ID


def create_marker(store: Store, store_id: str) -> str | None:
    """Write the marker unless there is one, and return what `read_marker` returns afterwards.

    Raises:
        StoreTransient, StoreRefused: the store is unavailable, or does not permit writing.
    """
    with tempfile.TemporaryDirectory(prefix="basin-marker-") as aside:
        source = Path(aside, MARKER)
        source.write_text(f"{store_id}\n", encoding="ascii")
        try:
            store.put_file(source, MARKER)
        except StoreTaken:
            return read_marker(store)
        except OSError as error:
            raise StoreTransient(f"The object store does not take its marker: {error.strerror or error}.") from error
    return store_id


def replace_marker(store: Store, store_id: str) -> None:
    """Write the marker in place of any other. After a kill in between there is none, and the next call writes it.

    Raises:
        StoreTransient, StoreRefused: the store is unavailable, or does not permit writing, or another process wrote
            the marker meanwhile.
    """
    try:
        store.delete(MARKER)
    except StoreUnreadable as error:
        raise StoreTransient(f"{MARKER} in the object store cannot be replaced: {error.message}") from error
    if create_marker(store, store_id) != store_id:
        raise StoreTransient("Another process wrote the marker of the object store at the same time.")
