"""What other processes of the same user may see of ours: real processes that look into each other's /proc."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.settings import Settings
from local import broker
from local.processes import ProcessMonitor, ServiceProcess
from tests.support.service import ROOT, until

SECRET = "s3cr3t-c4n4ry"  # noqa: S105 - what must not be found
NOBODY = """
import ctypes, json, os
from pathlib import Path
from core.process import forbid_reading
from worker import kernel_oom

def seen():
    child = os.fork()
    if child == 0:
        try:
            found = b"s3cr3t-c4n4ry" in Path(f"/proc/{os.getppid()}/environ").read_bytes()
        except PermissionError:
            os._exit(1)
        os._exit(0 if found else 2)
    looked = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    own = Path("/proc/self/cgroup").read_text(), kernel_oom.oom_kills(), len(os.listdir("/proc/self/fd"))
    return looked, own

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # a change of user has closed it; an exec would open it again
before = seen()
forbid_reading()
print(json.dumps([before, seen()]))
"""
POWERLESS = """
import ctypes, os, sys
for capability in range(64):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
"""root may read everything; without capabilities it is a user like others."""

READER = "import sys; print(open(f'/proc/{sys.argv[1]}/environ').read())"


def test_a_process_that_forbids_it_is_not_read(tmp_path: Path) -> None:
    """And it still reads what it needs of itself: its control group, and how much the kernel has killed there."""
    environment = os.environ | {"AWS_SECRET_ACCESS_KEY": SECRET, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", NOBODY], env=environment, cwd=ROOT, capture_output=True, timeout=60.0, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    (looked, own), after = json.loads(done.stdout)
    assert looked == 0
    assert after == [1, own]


@pytest.mark.parametrize("command", [["worker"], ["api", "--port", "0"], ["up", "--no-worker", "--port", "0"]])
def test_the_service_is_not_read(command: list[str], sqlite_url: str, tmp_path: Path) -> None:
    """By training code, which runs as the same user: the environment holds the passwords of database and store."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BASIN_")} | {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "BASIN_DATABASE_URL": sqlite_url,
        "BASIN_BROKER_URL": f"redis+socket://{tmp_path / 'nobody.sock'}",
        "BASIN_HOME": str(tmp_path),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'sdk'}",
    }
    arguments = [sys.executable, "-c", POWERLESS, "-m", "basin", *command]
    with (tmp_path / "said.txt").open("wb") as out:
        process = subprocess.Popen(arguments, env=environment, cwd=tmp_path, stdout=out, stderr=out)

    def refused() -> bool:
        assert process.poll() is None, (tmp_path / "said.txt").read_text()
        if psutil.Process(process.pid).cmdline()[1:3] != ["-m", "basin"]:
            return False  # it still has the capabilities of root, which alone keep others out
        reader = [sys.executable, "-c", POWERLESS, "-I", "-S", "-c", READER, str(process.pid)]
        read = subprocess.run(reader, capture_output=True, text=True, timeout=60.0, check=False)
        return "PermissionError" in read.stderr

    try:
        until("it is closed", refused, 30)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60.0)


def test_the_broker_is_given_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs none, and its environment stays open to every process of this user."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("BASIN_LOG_LEVEL", "DEBUG")
    assert not broker.broker_process("/usr/bin/server", Settings(home=tmp_path)).trusted
    command = (sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    keeper = ProcessMonitor(
        ServiceProcess("broker", command, {"LC_ALL": "C"}, tmp_path / "broker.log", trusted=False), lambda _: None
    )
    keeper.start()
    until("it has ended", lambda: not keeper.is_running, 30)
    keeper.kill_and_reap()
    given = json.loads((tmp_path / "broker.log").read_text())
    assert given["LC_ALL"] == "C"
    assert [name for name in given if name.startswith(("AWS_", "BASIN_"))] == []
