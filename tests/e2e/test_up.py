"""`basin up` as people use it: started, used, interrupted, killed, started again."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from basin.client import Client
from tests.architecture.tree import ROOT
from tests.e2e.conftest import BASIN, Up, answers, cli, environment
from tests.support.service import gone, until

Start = Callable[..., Up]
DIGITS = str(ROOT / "examples" / "digits-cosine-swa.yaml")
LONG = ("--set", "epochs=200000", "--set", "checkpoints={every: 400st}", "--set", "model={name: mlp, hidden: [8]}")
"""A job that somebody has to end."""
IRIS = {"model": {"name": "logistic"}, "data": {"name": "iris"}, "optimizer": {"name": "adam"}}


def test_a_first_session(start: Start, home: Path) -> None:
    """What the README promises, in its order."""
    up = start()
    url = up.url()
    followed = cli(home, "submit", DIGITS, "--set", "epochs=30", "--follow", url=url)
    assert followed.returncode == 0, followed.stderr + up.said
    job_id = followed.stdout.split()[0]
    rows = {line.split()[0]: line.split() for line in followed.stdout.splitlines() if line.strip()}
    assert float(rows["swa"][1]) >= 0.96
    listed = json.loads(cli(home, "list", "-o", "json", url=url).stdout)
    assert [(one["id"], one["status"]) for one in listed["data"]] == [(job_id, "succeeded")]
    got = cli(home, "download", job_id, "--to", "weights.safetensors", url=url)
    assert got.returncode == 0, got.stderr
    assert (home.parent / "weights.safetensors").stat().st_size > 100_000
    shown = json.loads(cli(home, "show", job_id, "-o", "json", url=url).stdout)
    assert shown["results"]["swa"]["test"]["accuracy"] >= 0.96
    again = cli(home, "up", "--port", "0")
    assert (again.returncode, again.stdout) == (1, "")
    assert f"already running in {home}: {url} (process {up.process.pid})" in again.stderr
    assert up.end() < 10
    assert up.process.returncode == 0
    assert up.left() == []
    assert not answers(url)


def test_ctrl_c_here_and_there_and_the_job_goes_on(start: Start, home: Path) -> None:
    """First of a follower, then of the whole service: neither ends the job."""
    up = start()
    url = up.url()
    following = subprocess.Popen(
        [*BASIN, "submit", DIGITS, "--follow", *LONG],
        env=environment(home) | {"BASIN_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with Client(url) as client:
        until("progress", lambda: any(one.progress.step > 0 for one in client.list().data))
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
        job_id = client.list().data[0].id
        assert following.returncode == 130
        assert f"{job_id} continues." in said
        until("a checkpoint", lambda: client.checkpoints(job_id))
        assert client.get(job_id).status == "running"
    assert up.end() < 10
    assert up.process.returncode == 0
    assert up.left() == []

    second = start()
    with Client(second.url()) as client:
        until("its next attempt", lambda: (job := client.get(job_id)).attempt == 2 and job.progress.step > 0)
        assert client.get(job_id).progress.step >= 400
        moments = [moment["status"] for moment in client.get(job_id).raw()["timeline"]]
        assert moments == ["queued", "running", "queued", "running"]
        assert cli(home, "cancel", job_id, url=second.url()).returncode == 0
        assert client.wait(job_id, timeout=30).status == "cancelled"
    assert second.end(signal.SIGTERM) < 10
    assert second.left() == []


@pytest.mark.slow
def test_parts_that_die_start_again(start: Start, home: Path) -> None:
    up = start()
    url = up.url()
    with Client(url) as client:
        job_id = client.submit(IRIS | {"epochs": 10**7, "log_every": 100}).id
        until("training", lambda: client.get(job_id).progress.step > 0)
        for name in ("api", "worker"):
            killed = up.part(name)
            up.family()
            killed.kill()
            until(f"another {name}", partial(another, up, name, killed))
        until("the api answers", lambda: answers(url))
        until("its next attempt", lambda: (job := client.get(job_id)).attempt == 2 and job.progress.step > 0)
        client.cancel(job_id)
        assert client.wait(job_id, timeout=30).status == "cancelled"
    assert "api ended (SIGKILL), starts again" in up.said
    assert "worker ended (SIGKILL), starts again" in up.said
    assert up.end() < 10
    assert up.left() == []


def another(up: Up, name: str, killed: psutil.Process) -> bool:
    try:
        return up.part(name) != killed
    except (AssertionError, psutil.NoSuchProcess):
        return False


def test_kill_9_leaves_nothing_behind(start: Start, home: Path) -> None:
    """Somebody's `up` may be killed with its terminal; a worker that lives on would train for nobody."""
    up = start()
    with Client(up.url()) as client:
        job_id = cli(home, "submit", DIGITS, *LONG, url=up.url()).stdout.split()[0]
        until("training", lambda: client.get(job_id).progress.step > 0)
    assert len(up.family()) >= 6  # up, broker, api, worker, zygote, runner
    up.end(signal.SIGKILL)
    assert up.left(5.0) == []


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(start: Start) -> None:
    up = start()
    up.url()
    worker = up.part("worker")
    worker.suspend()  # deaf to SIGTERM
    up.family()
    up.process.send_signal(signal.SIGINT)
    until("the first", lambda: "stopping" in up.said)
    assert up.end() < 3
    assert up.left() == []


@pytest.mark.slow
def test_a_database_of_ones_own_from_basin_toml(start: Start, home: Path, empty_postgresql_url: str) -> None:
    """Settings of the folder reach every part, and the migrations run by themselves."""
    (home.parent / "basin.toml").write_text(f'database_url = "{empty_postgresql_url}"\nlog_level = "WARNING"\n')
    up = start()
    with Client(up.url()) as client:
        assert client.wait(client.submit(IRIS | {"epochs": 2}).id, timeout=60).status == "succeeded"
    assert up.end() < 10
    assert up.left() == []
    assert not (home / "basin.db").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_it_starts_is_heard(start: Start, number: int) -> None:
    up = start("--no-worker")
    until("the migration", lambda: len(up.family()) > 1)
    assert up.end(number) < 10
    assert up.process.returncode == 0
    assert up.left() == []


def test_a_port_that_is_taken_is_said(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = cli(home, "up", "--port", str(port))
    assert said.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in said.stderr
    assert "--port" in said.stderr


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        pytest.param("BASIN_HOST", "0.0.0.0", "not a loopback address", marks=pytest.mark.slow),  # noqa: S104 - the point
        ("BASIN_PORT", "many", "port"),
        ("BASIN_DATABASE_URL", "sqlite:////proc/basin/basin.db", "/proc/basin"),
        ("BASIN_BROKER_URL", "redi://nobody:1", "must begin with one of redis://"),
        ("BASIN_HOME", "/proc/basin", "BASIN_HOME names another folder"),
    ],
)
def test_settings_that_cannot_work_end_it_with_a_reason(home: Path, variable: str, value: str, message: str) -> None:
    said = subprocess.run(
        [*BASIN, "up", *(["--port", "0"] if variable != "BASIN_PORT" else [])],
        cwd=home.parent,
        env=environment(home) | {variable: value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 1
    assert message in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.slow
def test_a_home_that_is_deep_and_odd_works_too(start: Start, home: Path, tmp_path: Path) -> None:
    """Unix socket paths end at a hundred bytes; people's folders do not."""
    deep = tmp_path / ("a folder with spaces, ünd mehr " * 2).strip() / "and deeper" / "home"
    deep.parent.mkdir(parents=True)
    home.rename(deep)
    up = Up(deep, "--no-worker")
    try:
        with Client(up.url()) as client:
            broker = next(one for one in psutil.Process(up.process.pid).children() if "server" in one.name())
            assert client.list().data == ()
        sockets = {str(one.laddr) for one in broker.net_connections("unix")} - {""}
        assert len(sockets) == 1
        path = Path(sockets.pop())
        assert len(os.fsencode(path)) <= 100
        assert path.parent.stat().st_mode & 0o77 == 0
        assert broker.net_connections("inet") == []
        assert up.end() < 10
        assert up.left() == []
    finally:
        up.close()


def test_a_demo_whose_service_cannot_start_says_why(home: Path) -> None:
    said = subprocess.run(
        [*BASIN, "demo"],
        cwd=home.parent,
        env=environment(home) | {"BASIN_PORT": "0", "BASIN_STORE_URL": "ftp://elsewhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 1
    assert "error: the service did not start\n" in said.stderr
    assert "store_url must be" in said.stderr


@pytest.mark.slow
def test_the_demo_from_start_to_stop(home: Path) -> None:
    """What a stranger runs first; not a terminal here, so every line is plain."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    began = time.monotonic()
    demo = psutil.Popen(
        [*BASIN, "demo"],
        cwd=home.parent,
        env=environment(home) | {"BASIN_PORT": str(port)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until("its processes", lambda: len(demo.children(recursive=True)) >= 4)
    family = demo.children(recursive=True)
    out, err = demo.communicate(timeout=120)
    assert demo.returncode == 0, (out, err, time.monotonic() - began)
    assert "\x1b" not in out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["weights"][1:] == ["test", "accuracy", "test", "loss"]
    assert float(rows["swa"][1]) >= 0.96
    assert f"http://127.0.0.1:{port}/docs" in out
    weights = home.parent / rows["SWA"][2]
    assert weights.stat().st_size > 100_000
    assert all(gone(one, 2.0) for one in family)
