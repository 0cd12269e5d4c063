"""The client's key: sent, and shown nowhere."""

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from basin.cli import build_app
from basin.client import Client
from basin.errors import BadKey
from basin.session import CliSession
from tests.sdk.conftest import JOB_ID, Said, job
from tests.sdk.stub import Answer, Stub

Basin = Callable[..., Said]
SECRET = "bsn_01m84c0rnffgxad9jfym4h0ta6_" + "8" * 52
PROBLEM = {"title": "Unauthorized", "status": 401, "code": "unauthenticated", "detail": "A valid API key is needed."}


def test_the_key_goes_along_and_is_not_said(
    basin: Basin, stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stub.on("GET", f"/v1/jobs/{JOB_ID}", Answer(body=job("succeeded")))
    stub.on("GET", f"/v1/jobs/{JOB_ID}/checkpoints", Answer(body={"data": []}))
    said = basin("show", JOB_ID, "--key", SECRET)
    monkeypatch.setenv("BASIN_API_KEY", f" {SECRET}\n")
    other = basin("watch", JOB_ID)
    assert (said.code, other.code) == (0, 0)
    assert {one.headers["authorization"] for one in stub.asked} == {f"Bearer {SECRET}"}
    helped = basin("show", "--help")
    assert "BASIN_API_KEY" in helped.out
    assert SECRET[-20:] not in said.out + said.err + other.out + other.err + helped.out + helped.err


def test_a_refused_key_is_told_with_the_way_out(basin: Basin, stub: Stub) -> None:
    stub.on("GET", "/v1/jobs", Answer(401, PROBLEM))
    said = basin("list", "--key", SECRET)
    assert said.code == 1
    assert said.err == (
        "error: A valid API key is needed. (401 unauthenticated)\n  Give a key:  --key, or BASIN_API_KEY\n"
    )


@pytest.mark.parametrize("bad", [f"{SECRET}\r\nX: y", f"{SECRET}é", f"{SECRET} {SECRET}", f"{SECRET}\x00"])
def test_a_key_that_cannot_be_sent_is_not_repeated(stub: Stub, bad: str) -> None:
    """The libraries below would quote it in their errors."""
    with pytest.raises(BadKey) as refused:
        Client(stub.url, bad)
    assert "8888" not in str(refused.value)
    assert "8888" not in repr(CliSession(None, json=False, key=SECRET))


def test_an_unreachable_service_does_not_quote_the_key(basin: Basin) -> None:
    said = basin("list", "--key", SECRET, "--url", "http://127.0.0.1:1")
    assert said.code == 1
    assert "8888" not in said.out + said.err


def test_a_server_may_bring_a_group_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("key", "local.keys:key", "basin.commands")
    monkeypatch.setattr(metadata, "entry_points", lambda **_: [point])
    group: Any = typer.main.get_command(build_app())
    assert sorted(group.commands["key"].commands) == ["create", "list", "revoke"]


def test_the_servers_key_commands_are_light(tmp_path: Path) -> None:
    code = "import sys, local.keys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"sqlalchemy", "pydantic", "fastapi", "alembic"} & set(done.stdout.split()) == set()
