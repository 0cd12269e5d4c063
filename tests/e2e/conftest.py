"""Fixtures: `basin up` as a person starts it, in a home of its own, with every process that belongs to it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from basin.client import Client
from basin.errors import Unreachable
from tests.support.service import TIMINGS, gone

BASIN = [sys.executable, "-m", "basin"]


def environment(home: Path) -> dict[str, str]:
    """Ours, without anybody's BASIN_ settings: this home, short timings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BASIN_", "FORCE_COLOR"))}
    return kept | TIMINGS | {"BASIN_HOME": str(home)}


class Up:
    """One `basin up`: its address, its processes, its end."""

    def __init__(self, home: Path, *arguments: str) -> None:
        self.home = home
        self._out = (home.parent / f"{home.name}-up.txt").open("w+b")
        self.process = subprocess.Popen(
            [*BASIN, "up", "--port", "0", *arguments],
            cwd=home.parent,
            env=environment(home),
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=self._out,
            start_new_session=True,
        )
        self._family: dict[int, psutil.Process] = {}

    @property
    def said(self) -> str:
        return Path(str(self._out.name)).read_text(encoding="utf-8")

    def url(self) -> str:
        """Where it answers, once it has said so."""
        deadline = time.monotonic() + 60
        while "running at" not in self.said:
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.02)
        return self.said.partition("running at ")[2].split()[0]

    def family(self) -> dict[int, psutil.Process]:
        """Every process that has belonged to it so far."""
        top = psutil.Process(self.process.pid)
        for one in (top, *top.children(recursive=True)):
            self._family.setdefault(one.pid, one)
        return self._family

    def part(self, name: str) -> psutil.Process:
        """A part by its command: api, worker."""
        for one in psutil.Process(self.process.pid).children():
            if one.cmdline()[1:4] == ["-m", "basin", name]:
                return one
        raise AssertionError(f"no {name} among {self.family()}")

    def end(self, number: int = signal.SIGINT) -> float:
        """Sends the signal; seconds until the process itself is gone."""
        self.family()
        before = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(30)
        return time.monotonic() - before

    def left(self, seconds: float = 2.0) -> list[str]:
        """Command lines of those that are still there after `seconds`."""
        deadline = time.monotonic() + seconds
        living = [one for one in self._family.values() if not gone(one, max(0.01, deadline - time.monotonic()))]
        return [" ".join(one.cmdline()) for one in living]

    def close(self) -> None:
        """Whatever a test left behind is killed."""
        if self.process.poll() is None:
            self.end(signal.SIGTERM)
        for one in self._family.values():
            if not gone(one, 0.01):
                one.kill()
        self._out.close()


@pytest.fixture
def home(tmp_path: Path, datasets: Callable[[str], Path]) -> Path:
    """A home that holds the datasets already: making them costs a second each."""
    folder = tmp_path / "home"
    (folder / "datasets").mkdir(parents=True)
    for name in ("digits", "iris"):
        shutil.copy(datasets(name), folder / "datasets")
    return folder


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., Up]]:
    """Starts `basin up` in the home of this test."""
    started: list[Up] = []

    def one(*arguments: str) -> Up:
        started.append(Up(home, *arguments))
        return started[-1]

    yield one
    for up in started:
        up.close()


def cli(home: Path, *arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command line in a shell of its own."""
    extra = {"BASIN_URL": url} if url else {}
    return subprocess.run(
        [*BASIN, *arguments],
        cwd=home.parent,
        env=environment(home) | extra,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def answers(url: str) -> bool:
    """Whether the service is there."""
    with Client(url) as client:
        try:
            return client.alive()
        except Unreachable:
            return False
