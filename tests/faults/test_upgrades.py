"""A release is replaced by the next one while it works: the schema first, then one process after the other."""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text

from core.db.migrate import at_head
from core.jobs.ledger.check import Ledger
from tests.faults.conftest import SHORT, Truth
from tests.support.broker import Broker
from tests.support.service import ROOT, Part, Service, gone, until

# The last commit before migration 0004, with pause and resume, and without retries, forks and warm starts.
PREVIOUS = "b6fa5e7"
Serve = Callable[[str, Broker | None], Service]
Check = Callable[[Service, str], None]


@pytest.fixture(scope="session")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of the previous release, from this repository's own history."""
    git = shutil.which("git")
    found = git and subprocess.run([git, "-C", ROOT, "archive", PREVIOUS], capture_output=True, check=False)
    if not found or found.returncode:
        pytest.skip(f"the history does not reach back to {PREVIOUS}: a shallow clone, or no clone at all")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    assert sorted(path.name[:4] for path in (folder / "migrations").glob("[0-9]*.py")) == ["0001", "0002", "0003"]
    return folder


@pytest.mark.parametrize("database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True)
def test_a_rolling_upgrade_in_the_middle_of_a_job(  # noqa: PLR0917 - fixtures
    serve: Serve, database_url: str, broker: Broker, previous: Path, same_as_undisturbed: Check, truth: Truth
) -> None:
    """The database is migrated first. The release before goes on with it: it trains, pauses, resumes and cancels.

    Then every process is replaced, one at a time, while a job is at work; it ends with the bits that nobody disturbed.
    """
    service = serve(database_url, broker)
    service.environment["BASIN_STALL_SECONDS"] = "90"
    with service.database() as db:
        assert at_head(db)
    service.tree = previous
    service.heal()
    assert service.ended(service.submit(SHORT))["status"] == "succeeded"
    job_id = service.submit(truth.spec)
    service.when_at(job_id, 1)
    service.http.post(f"/v1/jobs/{job_id}/pause")
    step = service.when(job_id, lambda job: job["status"] == "paused")["progress"]["step"]
    unwanted = service.submit(truth.spec)
    service.when_at(unwanted, 1)
    service.http.post(f"/v1/jobs/{unwanted}/cancel")
    assert service.ended(unwanted)["status"] == "cancelled"
    service.http.post(f"/v1/jobs/{job_id}/resume")

    service.when_at(job_id, step + 1)
    broker.kill()
    broker.start()
    service.tree = ROOT
    (old_worker,), old_api = service.workers, service.api
    assert old_api is not None
    with still(old_worker):
        service.start_worker()  # its slot is free until the old one lets go of the job
        until("the old api lists both", lambda: len(service.http.get("/v1/workers").json()["data"]) == 2, 30.0)
    assert old_worker.stop(30.0) == 0
    assert all(gone(process, 5.0) for process in old_worker.offspring())
    step = service.job(job_id)["progress"]["step"]
    service.when_at(job_id, step + 1)
    with still(service.worker):
        service.start_api()
        assert old_api.stop() == 0
    same_as_undisturbed(service, job_id)
    assert service.job(job_id)["attempt"] == 3
    assert service.ended(service.submit(SHORT))["status"] == "succeeded"
    with service.database() as db:
        assert list(Ledger(db, None).iter_findings()) == []


@contextmanager
def still(worker: Part) -> Iterator[None]:
    """Its runner is held where it is, so that no job ends before a process has started, however slow the machine."""
    (runner,) = worker.runners()
    runner.suspend()
    yield
    runner.resume()


@pytest.mark.parametrize(("module", "arguments"), [("api", ["--port", "0"]), ("worker", [])])
def test_a_release_that_is_too_old_refuses_to_start(
    serve: Serve, sqlite_url: str, module: str, arguments: list[str]
) -> None:
    """One sentence that says what to do, and no traceback."""
    service = serve(sqlite_url, None)
    with service.database() as db, db.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        connection.execute(text("UPDATE generation SET oldest = 2"))
    part = service.start(module, arguments)
    assert part.wait(60.0) != 0
    (line,) = part.said.splitlines()
    assert line.endswith(
        ": this release (generation 1) is too old for the database, which takes generation 2 and later; "
        "install a newer release here"
    )
