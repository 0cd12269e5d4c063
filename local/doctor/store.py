"""The object store: a probe object is written, read, listed and removed; and whether it is the one of the database."""

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
PROBES: Final = "doctor/"  # outside the prefix of the jobs, where garbage collection removes orphans
BYTES: Final = 4096
BRING_BACK: Final = "mount or restore the right one, or correct BASIN_STORE_URL"


def store_checks(settings: Settings) -> Iterator[CheckResult]:
    """All operations that workers and garbage collection use."""
    url = settings.resolved_store_url()
    folder = folder_of_url(url)
    where = str(folder) if folder is not None else display_url(url)
    if folder is not None and not folder.exists():
        yield warning_check(NAME, f"{where} does not exist yet", "the first checkpoint creates it")
        return
    try:
        store = open_store(settings)
        store.ping()
        seconds = round_trip(store)
    except (BasinError, OSError) as error:
        do = (
            "correct BASIN_STORE_URL, BASIN_S3_ENDPOINT or the AWS_… variables; "
            "the key needs read, write, list and delete"
        )
        yield failed_check(
            NAME, f"{where}: {first_line(error)}", "make the folder writable, or free some space" if folder else do
        )
    else:
        yield passed_check(NAME, f"{where}, an object written, read, listed and removed in {1e3 * seconds:.0f} ms")
    if folder is not None:
        yield check_free_space("store disk", shutil.disk_usage(folder).free)


def identity_checks(settings: Settings) -> Iterator[CheckResult]:
    """Whether the store is the one that the database was made with; no result where that is not known."""
    with _existing_database(settings) as db:
        known = recorded_store_id(db) if db is not None and unfit_reason(db) is None else None
        if known is None or read_marker(open_store(settings)) == known:
            return
    found = f"the store at {store_place(settings)} is not the one that this database was made with"
    yield failed_check(NAME, found, f"{BRING_BACK}; if it was moved or restored to there, `basin doctor --adopt-store`")


def adopt_and_report(settings: Settings) -> CheckResult:
    """Write the database's id into the store, if `adopt_store` accepts it; returns what was done, or why not."""
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
        return passed_check(NAME, f"{where} is now the one of this database: its marker was written")
    return passed_check(NAME, f"{where} is the one of this database already; nothing was changed")


@contextmanager
def _existing_database(settings: Settings) -> Iterator[Database | None]:
    """The database; None: it is an SQLite file that does not exist, and a check does not create it."""
    url = make_url(settings.resolved_database_url())
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        yield None
        return
    with closing(open_database(settings.resolved_database_url(), pool_size=1)) as db:
        yield db


def round_trip(store: Store) -> float:
    """Seconds to write, read, list and delete one object.

    Raises:
        OSError: the store returns other bytes, or its listing is wrong.
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
                raise OSError("an object was read with other bytes than were written")
            if [found.key for found in store.list(f"{prefix}/")] != [key]:
                raise OSError("an object that was written is not listed")
        finally:
            store.delete(key)
        if list(store.list(f"{prefix}/")):
            raise OSError("an object that was removed is still listed")
        return time.monotonic() - begun
