"""The database: reachable, writable, with the right schema, settings and time; and the state of the service in it."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from core.db.migrate import GENERATION, current_revision, head_revision, oldest_generation
from core.db.session import Database, database_now, open_database
from core.db.tables import service_state
from core.settings import Settings
from local.doctor.checks import CheckResult, failed_check, first_line, passed_check, warning_check
from local.doctor.service import service_checks

NAME: Final = "database"
MIGRATE: Final = "run `basin migrate`"
CLOCK_SECONDS: Final = 2.0
LONG_LOG: Final = (
    256 << 20
)  # bytes of a write-ahead log; a long one means that a reader blocks the checkpoint of the log
TIMEOUTS: Final = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
FULL: Final = 0.8


def database_checks(settings: Settings) -> Iterator[CheckResult]:
    """All checks of the database over one connection. An SQLite file that does not exist is not created."""
    url = make_url(settings.resolved_database_url())
    file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    if file is not None and not file.is_file():
        yield failed_check(NAME, f"{file} does not exist yet", f"{MIGRATE}, or start `basin up`, which does")
        return
    with closing(open_database(settings.resolved_database_url(), pool_size=1)) as db:
        yield from _check_sqlite(db, file) if file is not None else _check_postgresql(db)
        yield _check_writable(db)
        yield _check_clock(db)
        schema = _check_schema(db)
        yield schema
        if schema.do is None:
            yield from service_checks(db, settings)


def _check_sqlite(db: Database, file: Path) -> Iterator[CheckResult]:
    with db.read() as connection:
        version = connection.exec_driver_sql("SELECT sqlite_version()").scalar_one()
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    log = file.with_name(f"{file.name}-wal")
    written = log.stat().st_size if log.exists() else 0
    found = f"SQLite {version} at {file}, {file.stat().st_size / 1e6:.1f} MB, journal {mode}"
    if mode != "wal":
        do = "move it to a local disk: on a network share, readers and writers block each other"
        yield failed_check(NAME, found, do)
    elif written > LONG_LOG:
        do = "look for a process with a long read transaction: SQLite cannot shorten the log meanwhile"
        yield warning_check(NAME, f"{found}, with a log of {written / 1e6:.0f} MB", do)
    else:
        yield passed_check(NAME, found)


def _check_postgresql(db: Database) -> Iterator[CheckResult]:
    begun = time.monotonic()
    with db.read() as connection:
        version = connection.exec_driver_sql("SHOW server_version").scalar_one()
        ping = time.monotonic()
        connection.exec_driver_sql("SELECT 1")
        trip = time.monotonic() - ping
        off = [name for name in TIMEOUTS if connection.exec_driver_sql(f"SHOW {name}").scalar_one() == "0"]
        used, most = _count_connections(connection)
    found = f"PostgreSQL {version}, connected in {1e3 * (ping - begun):.0f} ms, round trip {1e3 * trip:.1f} ms"
    if off:
        do = "let the connection pooler pass startup options through, or connect without it"
        yield warning_check(NAME, f"{found}; {', '.join(off)} not in force", do)
    else:
        yield passed_check(NAME, f"{found}, timeouts in force")
    if used > FULL * most:
        yield warning_check(
            NAME, f"{used} of {most} connections are in use", "raise max_connections, or run fewer processes"
        )


def _count_connections(connection: Connection) -> tuple[int, int]:
    """How many connections are open, and `max_connections`."""
    used = connection.exec_driver_sql("SELECT count(*) FROM pg_stat_activity").scalar_one()
    return int(used), int(connection.exec_driver_sql("SHOW max_connections").scalar_one())


def _check_writable(db: Database) -> CheckResult:
    """Whether a write transaction commits; this one changes no row."""
    name = "writes"
    try:
        with db.write() as connection:
            if db.dialect == "postgresql":
                connection.execute(text("SET LOCAL lock_timeout = '2s'"))
            connection.execute(update(service_state).where(service_state.c.name == "").values(at=0))
    except SQLAlchemyError as error:
        if "service_state" in first_line(error):
            return warning_check(name, "not tested: the database has no schema", MIGRATE)
        return failed_check(
            name, first_line(error), "let the service write: no standby server, no read-only role, no full disk"
        )
    return passed_check(name, "a write transaction was committed")


def _check_clock(db: Database) -> CheckResult:
    """How far the database's clock is from this machine's, accurate to half of a round trip."""
    with db.read() as connection:
        before = time.time()
        there = float(connection.execute(select(database_now())).scalar_one())
        after = time.time()
    ahead, doubt = there - (before + after) / 2, (after - before) / 2
    found = f"the database is {abs(ahead):.2f} s {'ahead of' if ahead > 0 else 'behind'} this machine"
    if abs(ahead) - doubt > CLOCK_SECONDS:
        return warning_check(
            "clock", found, "set both by NTP: leases use the database's clock, logs and S3 this machine's"
        )
    return passed_check("clock", found)


def _check_schema(db: Database) -> CheckResult:
    """Whether the migrations of this release have run, and none that is incompatible with it."""
    there, ours = current_revision(db), head_revision()
    if there is None:
        return failed_check("schema", "the database has no schema yet", MIGRATE)
    if there < ours:
        return failed_check("schema", f"at {there}, this release needs {ours}", MIGRATE)
    oldest = oldest_generation(db) or GENERATION
    if oldest > GENERATION:
        found = f"at {there}, for releases of generation {oldest} and later; this one is of generation {GENERATION}"
        return failed_check("schema", found, "install a newer release here")
    if there > ours:
        return warning_check("schema", f"at {there}, newer than this release's {ours}", "update this installation")
    return passed_check("schema", f"at {there}, as this release has it")
