"""Fixture: the real service as processes, with a home of its own, a free port and short timings."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import psutil
import pytest

from core.db.session import Database, open_database
from core.recipe.data.materialise import BUILT_IN
from tests.support.broker import Broker, running_broker
from tests.support.databases import Server

ROOT = Path(__file__).resolve().parents[2]
TERMINAL = {"succeeded", "failed", "cancelled"}
TIMINGS = {
    "BASIN_LEASE_SECONDS": "3",
    "BASIN_BEAT_SECONDS": "0.7",
    "BASIN_TICK_SECONDS": "0.5",
    "BASIN_POLL_SECONDS": "0.5",
    "BASIN_HINT_AFTER_SECONDS": "2",
    "BASIN_CANCEL_GRACE_SECONDS": "2",
    "BASIN_STALL_SECONDS": "6",
}
Job = dict[str, Any]
T = TypeVar("T")


def until(what: str, look: Callable[[], T | None], seconds: float = 90.0) -> T:
    """The first true answer of `look`, asked again and again; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.05)


def gone(process: psutil.Process, seconds: float) -> bool:
    """Whether it ended within that time; one that only waits for init to collect its status has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)
                continue
        return True
    return False


class Part:
    """One process of the service and everything below it; its output lies in a file."""

    def __init__(  # noqa: PLR0917 - what runs, and in which surroundings
        self,
        tree: Path,
        module: str,
        arguments: list[str],
        environment: dict[str, str],
        log: Path,
        packages: tuple[Path, ...] = (),
    ) -> None:
        """`tree` is the checkout whose code runs, `packages` are folders that it imports from besides."""
        self._log = log
        self._start = log.stat().st_size if log.exists() else 0
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=tree,
                env=environment | {"PYTHONPATH": os.pathsep.join(map(str, (tree, tree / "sdk", *packages)))},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.pid = self._process.pid

    @property
    def said(self) -> str:
        """What this process has printed so far."""
        return self._log.read_bytes()[self._start :].decode(errors="replace")

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def tree(self) -> list[psutil.Process]:
        """This process and all below it."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.pid)
            return [top, *top.children(recursive=True)]
        return []

    def zygote(self) -> psutil.Process | None:
        return next((child for child in self._children() if "worker.zygote" in child.cmdline()), None)

    def runners(self) -> list[psutil.Process]:
        """The zygote's children; each leads a session of its own."""
        with contextlib.suppress(psutil.NoSuchProcess):
            zygote = self.zygote()
            return zygote.children() if zygote else []
        return []

    def offspring(self) -> list[psutil.Process]:
        """The zygotes and runners of this process, also when it is dead: its pid stands on their command lines."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if line[-1:] == [str(self.pid)] and ("worker.zygote" in line or "worker.runner" in line):
                    found.append(process)
        return found

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, seconds: float = 40.0) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait(seconds)

    def wait(self, seconds: float) -> int:
        """Its exit status, when it has ended by itself."""
        return self._process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to this process alone; what it started has to notice by itself."""
        self._process.kill()
        self._process.wait()

    def _children(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.pid).children()
        return []


class Service:
    """An api and workers over one database, started and ended one by one."""

    def __init__(self, home: Path, database_url: str, broker_url: str | None) -> None:
        """Without a broker's URL nothing listens at the broker's address."""
        self.home = home
        self.database_url = database_url
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("BASIN_")}
        self.environment |= TIMINGS | {
            "BASIN_HOME": str(home),
            "BASIN_DATABASE_URL": database_url,
            "BASIN_BROKER_URL": broker_url or f"redis+socket://{home / 'nobody.sock'}",
        }
        self.broker: Broker | None = None  # where tests may end it and start it again
        self.slots = 1  # of each worker that is started
        self.tree = ROOT  # the checkout of what is started
        self.packages: tuple[Path, ...] = ()  # folders from which it imports besides
        self.parts: list[Part] = []
        self.api: Part | None = None
        self.http = httpx2.Client(timeout=20.0)

    @property
    def workers(self) -> list[Part]:
        """The workers that live."""
        return [part for part in self.parts if part is not self.api and part.exit_code is None]

    @property
    def worker(self) -> Part:
        """The one worker that lives."""
        (part,) = self.workers
        return part

    def heal(self, workers: int = 1) -> None:
        """Bring the service to one api and so many workers, all ready."""
        for part in self.workers[workers:]:
            part.stop()
        started = [self.start("worker", ["--slots", str(self.slots)]) for _ in range(workers - len(self.workers))]
        if self.api is None or self.api.exit_code is not None:
            self.start_api()
        for worker in started:
            self.await_worker(worker)

    def start_api(self) -> Part:
        """An api that answers; `http` now talks to it."""
        part = self.api = self.start("api", ["--port", "0"])
        address = until("the api listens", lambda: self._says(part, r"listening on (http://[^\s\"]+)"))
        self.http.base_url = httpx2.URL(address)
        until("the api answers", self._ready)
        return part

    def start_worker(self, slots: int | None = None) -> Part:
        """One more worker, ready to fork."""
        return self.await_worker(self.start("worker", ["--slots", str(slots or self.slots)]))

    def await_worker(self, part: Part) -> Part:
        until("the worker is ready", lambda: self._says(part, "(worker is ready)"))
        return part

    def submit(self, spec: Job) -> str:
        answer = self.http.post("/v1/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Job:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def when(self, job_id: str, holds: Callable[[Job], object], seconds: float = 90.0) -> Job:
        """The job as soon as `holds` says yes."""

        def look() -> Job | None:
            job = self.job(job_id)
            return job if holds(job) else None

        return until(f"job {job_id}", look, seconds)

    def when_at(self, job_id: str, step: int) -> Job:
        """The job when it has run for `step` steps, and is still running."""
        job = self.when(job_id, lambda job: job["progress"].get("step", 0) >= step or job["status"] in TERMINAL)
        assert job["status"] == "running", job
        return job

    def ended(self, job_id: str, seconds: float = 90.0) -> Job:
        return self.when(job_id, lambda job: job["status"] in TERMINAL, seconds)

    def checkpoints(self, job_id: str) -> list[Job]:
        return list(self.http.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"])

    @contextlib.contextmanager
    def database(self) -> Iterator[Database]:
        """The service's own database, for what no endpoint tells."""
        db = open_database(self.database_url, pool_size=2)
        try:
            yield db
        finally:
            db.close()

    def stop(self) -> None:
        """End everything, and see that nothing is left behind."""
        for part in reversed(self.parts):
            if part.exit_code is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    part.stop()
        self.http.close()
        left = [process for part in self.parts for process in part.offspring() if not gone(process, 5.0)]
        for process in left:
            process.kill()
        assert not left, f"left behind: {left}"

    def start(self, module: str, arguments: list[str]) -> Part:
        log = self.home / f"{module}-{len(self.parts)}.log"
        part = Part(self.tree, module, arguments, self.environment, log, self.packages)
        self.parts.append(part)
        return part

    def _ready(self) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return self.http.get("/healthz").status_code == 200
        return False

    def _says(self, part: Part, pattern: str) -> str | None:
        """The first group of what this part has printed; fails when it has ended instead."""
        assert part.exit_code is None, part.said
        found = re.search(pattern, part.said)
        return found[1] if found else None


def make_home(folder: Path, datasets: Callable[[str], Path]) -> Path:
    """A home in which the built-in datasets are written already."""
    (folder / "datasets").mkdir(parents=True)
    for name in BUILT_IN:
        shutil.copy(datasets(name), folder / "datasets")
    return folder


@pytest.fixture
def home(tmp_path: Path, datasets: Callable[[str], Path]) -> Path:
    """A fresh home."""
    return make_home(tmp_path / "home", datasets)


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[[str, Broker | None], Service]]:
    """Make a service of a database's URL and a broker, or of none: then nothing listens at the broker's address."""
    made: list[Service] = []

    def make(database_url: str, broker: Broker | None) -> Service:
        made.append(Service(home, database_url, broker.url if broker else None))
        return made[-1]

    yield make
    for each in made:
        each.stop()


@contextlib.contextmanager
def lasting(
    folder: Path, datasets: Callable[[str], Path], database_url: str, broker: Broker | None
) -> Iterator[Service]:
    """A service for many tests; each heals it before it uses it."""
    running = Service(make_home(folder / "home", datasets), database_url, broker.url if broker else None)
    running.broker = broker
    yield running
    running.stop()


@pytest.fixture(scope="session")
def lasting_service(
    tmp_path_factory: pytest.TempPathFactory,
    datasets: Callable[[str], Path],
    sqlite_template: Path,
) -> Iterator[Service]:
    """On SQLite, with a broker."""
    folder = tmp_path_factory.mktemp("service")
    url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'basin.db')}"
    with running_broker() as broker, lasting(folder, datasets, url, broker) as running:
        yield running


@pytest.fixture(scope="session")
def lasting_brokerless_service(
    tmp_path_factory: pytest.TempPathFactory,
    datasets: Callable[[str], Path],
    sqlite_template: Path,
) -> Iterator[Service]:
    """On SQLite, without a broker from beginning to end."""
    folder = tmp_path_factory.mktemp("service")
    url = f"sqlite:///{shutil.copy(sqlite_template, folder / 'basin.db')}"
    with lasting(folder, datasets, url, None) as running:
        yield running


@pytest.fixture(scope="session")
def lasting_postgresql_service(
    tmp_path_factory: pytest.TempPathFactory,
    datasets: Callable[[str], Path],
    postgresql_server: Server,
) -> Iterator[Service]:
    """On PostgreSQL, with a broker."""
    name = f"service_{secrets.token_hex(6)}"
    url = postgresql_server.make(name, postgresql_server.template)
    folder = tmp_path_factory.mktemp("service")
    with running_broker() as broker, lasting(folder, datasets, url, broker) as running:
        yield running
    postgresql_server.drop(name)


@pytest.fixture
def sqlite_service(lasting_service: Service) -> Service:
    """One api and one worker on SQLite with a broker; what they did before shows in their database alone."""
    lasting_service.heal()
    return lasting_service


@pytest.fixture
def brokerless_service(lasting_brokerless_service: Service) -> Service:
    """The same without a broker."""
    lasting_brokerless_service.heal()
    return lasting_brokerless_service


@pytest.fixture
def postgresql_service(lasting_postgresql_service: Service) -> Service:
    """The same on PostgreSQL, with a broker."""
    lasting_postgresql_service.heal()
    return lasting_postgresql_service


@pytest.fixture(params=["sqlite_service", pytest.param("postgresql_service", marks=pytest.mark.slow)])
def either_service(request: pytest.FixtureRequest) -> Service:
    """Once on each kind of database."""
    service = request.getfixturevalue(request.param)
    assert isinstance(service, Service)
    return service
