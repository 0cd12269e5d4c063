"""A worker whose disk is full, or that may open no more files: its jobs go on, and end as if there had been room."""

import contextlib
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.faults.conftest import Truth
from tests.support.service import Service, until

Check = Callable[[Service, str], None]
Squeeze = Callable[[psutil.Process], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def without_descriptors(runner: psutil.Process) -> Iterator[None]:
    """The runner may open no file, until the end of the block."""
    soft, hard = runner.rlimit(resource.RLIMIT_NOFILE)
    runner.rlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        runner.rlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def full(disk: Path, _: psutil.Process) -> Iterator[None]:
    """Nothing else fits on the disk until the end of the block, whatever is removed from it meanwhile."""
    ballast, over = disk / ".ballast", threading.Event()

    def fill() -> None:
        with ballast.open("wb", buffering=0) as file:
            while not over.wait(0.005):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(1 << 12))

    filler = threading.Thread(target=fill, daemon=True)
    filler.start()
    try:
        yield
    finally:
        over.set()
        filler.join()
        ballast.unlink()


@pytest.fixture
def without_room(sqlite_service: Service) -> Iterator[Squeeze]:
    """Its scratch becomes a disk of its own; without the right to mount one it is descriptors once more."""
    service, scratch = sqlite_service, sqlite_service.home / "scratch"
    for worker in service.workers:
        worker.stop()
    scratch.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "basin-test", str(scratch)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    service.heal()

    yield partial(full, scratch) if mounted else without_descriptors
    if mounted:
        for worker in service.workers:
            worker.stop()
        subprocess.run(["umount", "-l", str(scratch)], check=True)


@pytest.fixture(params=["descriptors", pytest.param("room", marks=pytest.mark.slow)])
def squeezed(request: pytest.FixtureRequest) -> Squeeze:
    found: Squeeze = request.getfixturevalue("without_room") if request.param == "room" else without_descriptors
    return found


def failures(service: Service, job_id: str) -> set[str]:
    """The kinds of the checkpoints that could not be written."""
    events = service.http.get(f"/v1/jobs/{job_id}/events?types=warning&limit=1000").json()["data"]
    return {each["data"]["kind"] for each in events if each["data"]["code"] == "checkpoint_failed"}


def test_in_the_middle_and_at_the_end(
    sqlite_service: Service, squeezed: Squeeze, same_as_undisturbed: Check, truth: Truth
) -> None:
    """Marks are missed, the end is waited for; no attempt is lost, nothing has to be started again."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 5)
    (runner,) = sqlite_service.worker.runners()
    with squeezed(runner):
        until("a mark is missed", lambda: failures(sqlite_service, job_id))
    newest = sqlite_service.checkpoints(job_id)[-1]["id"]  # older ones go meanwhile
    until("one is written again", lambda: sqlite_service.checkpoints(job_id)[-1]["id"] != newest)
    with squeezed(runner):  # in time for its end, however slowly this process gets on
        until("the end is missed", lambda: "swa" in failures(sqlite_service, job_id))
        assert sqlite_service.job(job_id)["status"] == "running"
    same_as_undisturbed(sqlite_service, job_id)
    assert sqlite_service.job(job_id)["attempt"] == 1


@pytest.mark.slow
def test_a_pause_waits_for_room(sqlite_service: Service, same_as_undisturbed: Check, truth: Truth) -> None:
    """It stands where it was paused, not at some checkpoint before."""
    job_id = sqlite_service.submit(truth.spec)
    sqlite_service.when_at(job_id, truth.steps // 5)
    (runner,) = sqlite_service.worker.runners()
    with without_descriptors(runner):
        assert sqlite_service.http.post(f"/v1/jobs/{job_id}/pause").status_code == 202
        until("the checkpoint is missed", lambda: failures(sqlite_service, job_id))
    job = sqlite_service.when(job_id, lambda job: job["status"] == "paused")
    (*_, newest) = sqlite_service.checkpoints(job_id)
    assert newest["step"] == job["progress"]["step"]
    assert sqlite_service.http.post(f"/v1/jobs/{job_id}/resume").status_code == 202
    same_as_undisturbed(sqlite_service, job_id)
