"""The object store: one object written, read back, listed and removed; and whether it is that of the database."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from core.db.migrate import unfit_reason
from core.db.session import Database, open_database
from core.errors import BasinError
from core.jobs.store_identity import WrongStore, adopt_store, recorded_store_id, store_place
from core.settings import Settings
from core.store import open_store
from core.store.base import Store
from core.store.local import folder_of_url
from core.store.marker import read_marker
from local.doctor.checks import CheckResult, check_free_space, failed_check, first_line, passed_check, warning_check
from local.doctor.settings import display_url

NAME: Final = "store"
PROBES: Final = "doctor/"  # jobs' objects are elsewhere, and the sweep of orphans looks only there
BYTES: Final = 4096
BRING_BACK: Final = "mount or bring back the right one, or mend BASIN_STORE_URL"


def store_checks(settings: Settings) -> Iterator[CheckResult]:
    """Everything that workers and CARE do with it."""
    url = settings.resolved_store_url()
    folder = folder_of_url(url)
    where = str(folder) if folder is not None else display_url(url)
    if folder is not None and not folder.exists():
        yield warning_check(NAME, f"{where} is not there yet", "the first checkpoint makes it")
        return
    try:
        store = open_store(settings)
        store.ping()
        seconds = round_trip(store)
    except (BasinError, OSError) as error:
        do = (
            "mend BASIN_STORE_URL, BASIN_S3_ENDPOINT or the AWS_… variables; the key needs read, write, list and delete"
        )
        yield failed_check(
            NAME, f"{where}: {first_line(error)}", "make the folder writable, with room" if folder else do
        )
    else:
        yield passed_check(NAME, f"{where}, an object written, read, listed and removed in {1e3 * seconds:.0f} ms")
    if folder is not None:
        yield check_free_space("store disk", shutil.disk_usage(folder).free)


def identity_checks(settings: Settings) -> Iterator[CheckResult]:
    """Whether the store is the one that the database was made with; nothing where that cannot be told."""
    with _existing_database(settings) as db:
        known = recorded_store_id(db) if db is not None and unfit_reason(db) is None else None
        if known is None or read_marker(open_store(settings)) == known:
            return
    found = f"the store at {store_place(settings)} is not the one that this database was made with"
    yield failed_check(NAME, found, f"{BRING_BACK}; if it was moved or restored to there, `basin doctor --adopt-store`")


def adopt_and_report(settings: Settings) -> CheckResult:
    """Write the database's id into the store, if there is reason to; what was done, or why nothing was."""
    where = f"the store at {store_place(settings)}"
    try:
        with _existing_database(settings) as db:
            problem = "there is no database yet; run `basin migrate`" if db is None else unfit_reason(db)
            if db is None or problem is not None:
                return failed_check(NAME, f"{where} was not adopted: {problem}", "see `basin doctor`")
            written = adopt_store(db, open_store(settings))
    except WrongStore:
        found = f"{where} was not adopted: none of the checkpoints that the database names is in it"
        return failed_check(NAME, found, f"{BRING_BACK}, or delete the jobs whose checkpoints are lost")
    except (BasinError, OSError, SQLAlchemyError) as error:
        return failed_check(NAME, f"{where} was not adopted: {first_line(error)}", "see `basin doctor`")
    if written:
        return passed_check(NAME, f"{where} is that of this database from now on: its marker was written")
    return passed_check(NAME, f"{where} is that of this database already; nothing was changed")


@contextmanager
def _existing_database(settings: Settings) -> Iterator[Database | None]:
    """The database; None: it is a file that is not there, and a look makes none."""
    url = make_url(settings.resolved_database_url())
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        yield None
        return
    with closing(open_database(settings.resolved_database_url(), pool_size=1)) as db:
        yield db


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
