"""Fixtures: a stand-in service, a client of it, and the command line as one call."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from basin.cli import main
from basin.client import Client
from tests.sdk.stub import Stub, serving

JOB_ID = "job_01m84bq44bfsqsnzecv6qweh5d"


def job(status: str = "running", **fields: Any) -> dict[str, Any]:
    """A job as the service shows it."""
    return {"id": JOB_ID, "object": "job", "status": status, "name": "digits", "attempt": 1, "progress": {}} | fields


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as one:
        yield one


@pytest.fixture
def client(stub: Stub) -> Iterator[Client]:
    with Client(stub.url) as one:
        yield one


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def basin(stub: Stub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs `basin …` against the stub."""
    monkeypatch.setenv("BASIN_URL", stub.url)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["basin", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run
