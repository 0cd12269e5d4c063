"""The object store: one object written, read back, listed and removed."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.embedded.doctor.configured import place
from core.embedded.doctor.report import Check, fail, ok, said, space, warning
from core.errors import BasinError
from core.settings import Settings
from core.store import open_store
from core.store.base import Store
from core.store.local import folder_of_url

NAME: Final = "store"
PROBES: Final = "doctor/"  # jobs' objects are elsewhere, and the sweep of orphans looks only there
BYTES: Final = 4096


def store_checks(settings: Settings) -> Iterator[Check]:
    """Everything that workers and CARE do with it."""
    url = settings.resolved_store_url()
    folder = folder_of_url(url)
    where = str(folder) if folder is not None else place(url)
    if folder is not None and not folder.exists():
        yield warning(NAME, f"{where} is not there yet", "the first checkpoint makes it")
        return
    try:
        store = open_store(settings)
        store.ping()
        seconds = round_trip(store)
    except (BasinError, OSError) as error:
        do = (
            "mend BASIN_STORE_URL, BASIN_S3_ENDPOINT or the AWS_… variables; the key needs read, write, list and delete"
        )
        yield fail(NAME, f"{where}: {said(error)}", "make the folder writable, with room" if folder else do)
    else:
        yield ok(NAME, f"{where}, an object written, read, listed and removed in {1e3 * seconds:.0f} ms")
    if folder is not None:
        yield space("store disk", shutil.disk_usage(folder).free)


def round_trip(store: Store) -> float:
    """Seconds that it takes; the object is gone afterwards.

    Raises:
        OSError: what came back is not what was written.
    """
    prefix = f"{PROBES}{secrets.token_hex(8)}"
    key = f"{prefix}/probe"
    with tempfile.TemporaryDirectory(prefix="basin-doctor-") as aside:
        source = Path(aside, "out")
        source.write_bytes(secrets.token_bytes(BYTES))
        begun = time.monotonic()
        try:
            written = store.put_file(source, key)
            if store.fetch(key, Path(aside, "in")) != written:
                raise OSError("an object came back with other bytes")
            if [found.key for found in store.list(f"{prefix}/")] != [key]:
                raise OSError("an object that was written is not listed")
        finally:
            store.delete(key)
        if list(store.list(f"{prefix}/")):
            raise OSError("an object that was removed is still listed")
        return time.monotonic() - begun
