"""A whole service as `basin up` runs it, and the command line as the only way in."""

import json
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from basin.client import Client
from basin.shapes import Job
from tests.e2e.conftest import BASIN, Up, environment
from tests.support.broker import running_broker
from tests.support.databases import Server
from tests.support.service import until

SMALL = """
model: {name: mlp, hidden: [8]}
data: {name: iris}
optimizer: {name: sgd, lr: 0.1}
evaluate: {every: 1000st}
checkpoints: {every: 5000st}
steps: 200
"""
LONG = ("--set", "steps=100000000", "--set", "log_every=100")
"""It runs until somebody ends it."""


class House:
    """One `basin up` with a slot, and a key for each of two people: `mine`, and `bob`'s with his limits."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        """`settings` go into the folder's basin.toml."""
        lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
        (home.parent / "basin.toml").write_text("\n".join(lines))
        (home.parent / "small.yaml").write_text(SMALL)
        self.home = home
        self.up = Up(home)
        self.url = self.up.url()
        self.keys = {"mine": self._key("--owner", "local")}
        self.keys["bob"] = self._key("--owner", "bob", "--queued-jobs", "1", "--running-jobs", "1")

    def _key(self, *options: str) -> str:
        return self.run("key", "create", *options, who=None).stdout.strip()

    def run(self, *words: str, who: str | None = "mine") -> subprocess.CompletedProcess[str]:
        """`basin …` in a process of its own, whatever comes of it."""
        key = {"BASIN_API_KEY": self.keys[who]} if who else {}
        return subprocess.run(
            [*BASIN, *words],
            cwd=self.home.parent,
            env=environment(self.home) | {"BASIN_URL": self.url} | key | {"COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def basin(self, *words: str, who: str = "mine") -> str:
        """What it prints when it does what it was told."""
        done = self.run(*words, who=who)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def refused(self, *words: str, who: str = "mine") -> str:
        """What it says on stderr when it does not; nothing else may stand on stdout but what was done before."""
        done = self.run(*words, who=who)
        assert done.returncode == 1, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

    def submit(self, *changes: str, who: str = "mine") -> str:
        """The id of a job of its own kind, posted by `basin submit`."""
        return self.basin("submit", "small.yaml", *changes, who=who).split()[0]

    def followed(self, *words: str, code: int = 0) -> tuple[str, str]:
        """The id of the job that the command makes and follows to its end, and what it printed meanwhile."""
        done = self.run(*words, "--follow")
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done.stdout.split()[0], done.stdout

    def events(self, job_id: str, types: str = "status,warning") -> str:
        return self.basin("events", job_id, "--types", types)

    def client(self, who: str = "mine") -> Client:
        """For waiting only, and for numbers that no command prints."""
        return Client(self.url, self.keys[who])

    def when(self, job_id: str, holds: Callable[[Job], object], who: str = "mine") -> Job:
        """The job as soon as `holds` says yes."""
        with self.client(who) as client:
            for job in client.changes(job_id):
                if holds(job):
                    return job
        raise AssertionError(f"{job_id} has ended: {self.up.said}")

    def in_attempt(self, number: int, job_id: str, step: int = 1) -> Job:
        """The job once that attempt of it has made steps."""
        return self.when(job_id, lambda job: job.attempt == number and job.progress.step >= step)

    def zygote(self) -> psutil.Process:
        """The parent of all runners."""
        return until("a zygote", self._zygote)

    def _zygote(self) -> psutil.Process | None:
        try:
            children = self.up.part("worker").children()
            return next((one for one in children if "worker.zygote" in one.cmdline()), None)
        except (AssertionError, psutil.Error):
            return None

    def runner(self) -> psutil.Process:
        """The process that trains."""
        return until("a runner", lambda: next(iter(self.zygote().children()), None))

    def close(self) -> None:
        """Stop it, and see that nothing is left."""
        self.up.end()
        left = self.up.left(5.0)
        self.up.close()
        assert left == []


@pytest.fixture(scope="session", params=["embedded", pytest.param("postgresql", marks=pytest.mark.slow)])
def house(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, datasets: Callable[[str], Path]
) -> Iterator[House]:
    """One for all tests: on SQLite with the embedded broker, and on PostgreSQL with a broker of its own."""
    home = tmp_path_factory.mktemp("house") / "home"
    (home / "datasets").mkdir(parents=True)
    for name in ("iris", "diabetes"):
        shutil.copy(datasets(name), home / "datasets")
    with ExitStack() as around:
        settings = {}
        if request.param == "postgresql":
            server: Server = request.getfixturevalue("postgresql_server")
            name = f"house_{secrets.token_hex(6)}"
            around.callback(server.drop, name)
            settings = {"database_url": server.make(name)}
            settings["broker_url"] = around.enter_context(running_broker()).url
        running = House(home, settings)
        around.callback(running.close)
        yield running
