"""A compose stack of our own beside whatever else runs here: other names, another port, passwords of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
PROJECT = "basin-compose-test"

# In the worker's container. What vanishes meanwhile was removed by a sweep. The marker by which the database knows the
# store comes last in the alphabet's reverse order, when everything else is there.
_COPYING = """
from contextlib import suppress
from pathlib import Path
from core.settings import Settings
from core.store import open_store
from core.store.base import StoreMissing

store, aside = open_store(Settings()), Path("/var/lib/basin/aside")

def copy_out():
    for found in store.list(""):
        path = aside / found.key
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(StoreMissing):
            store.fetch(found.key, path)

def copy_back():
    for path in sorted(filter(Path.is_file, aside.rglob("*")), reverse=True):
        store.put_file(path, str(path.relative_to(aside)))

"""

T = TypeVar("T")


def tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def until(what: str, look: Callable[[], T | None], seconds: float) -> T:
    """The first true answer of `look`, asked twice a second; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.5)


def run(*command: str, told: str = "", environment: dict[str, str] | None = None) -> str:
    """What the command prints on standard output; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, env=environment, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


class Stack:
    """docker-compose.yml with a fresh .env; `down` leaves nothing behind."""

    def __init__(self, folder: Path) -> None:
        self.env = folder / "env"
        run("scripts/compose-env", str(self.env))
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        chosen = {"BASIN_PORT": str(self.port), "BASIN_SLOTS": "2"}
        named = {line.partition("=")[0] for line in self.env.read_text().splitlines() if "=" in line}
        # The shell's variables would win over the file's. TORCH_INDEX alone may come from there.
        self.environment = {name: value for name, value in os.environ.items() if name not in named - {"TORCH_INDEX"}}
        self.environment |= chosen
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = folder / "curl"
        self.forgets = False  # whether the store keeps its objects in memory

    def compose(self, *arguments: str) -> str:
        base = ("docker", "compose", "--project-name", PROJECT, "--env-file", str(self.env))
        return run(*base, *arguments, environment=self.environment)

    def refuses_without_env(self) -> str:
        """What compose says when there is no .env."""
        command = ("docker", "compose", "--project-name", PROJECT, "--env-file", os.devnull, "config", "--quiet")
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode != 0, "it started without passwords"
        return done.stderr.strip()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Service -> everything that Docker knows about its container, ended ones too."""
        ids = self.compose("ps", "--all", "--quiet").split()
        found = json.loads(run("docker", "inspect", *ids)) if ids else []
        return {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}

    def secrets(self) -> set[str]:
        """Every password, as the servers know it."""
        folder = self.env.with_name(f"{self.env.name}.secrets")
        return {path.read_text().strip() for path in folder.iterdir() if path.name.endswith(("password", "key"))}

    def inside(self, service: str, user: str, script: str) -> subprocess.CompletedProcess[str]:
        """What the script does in the container, as this user."""
        command = ("docker", "exec", "--user", user, self.containers()[service]["Id"], "sh", "-c", script)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def query(self, statement: str) -> str:
        """What PostgreSQL answers to its superuser, without ornaments."""
        options = ("--username", "basin", "--dbname", "basin", "--tuples-only", "--no-align", "--command", statement)
        return self.compose("exec", "-T", "postgres", "psql", *options).strip()

    def bucket(self, *request: str) -> str:
        """The status of the store's answer to a request about its bucket, which nobody has signed."""
        options = ("--silent", "--output", "/dev/null", "--write-out", "%{http_code}", *request)
        return self.compose("exec", "-T", "objects", "curl", *options, "http://127.0.0.1:8333/basin").strip()

    def copy_objects(self, way: str) -> None:
        """Everything in the store, "out" to a folder that outlasts it or "back" from there."""
        program = f"{_COPYING}copy_{way}()\n"
        self.compose("exec", "-T", "--user", "basin", "worker", "python", "-Ic", program)

    def users(self, container: dict[str, Any]) -> set[str]:
        """Who runs what the container was started for, without Docker's own init, which only passes signals on.

        Health checks come and go beside it, started from outside by the engine: they are nobody's descendants here.
        """
        lines = run("docker", "top", container["Id"], "-eo", "uid,pid,ppid,comm").splitlines()[1:]
        rows = {pid: (uid, parent, name) for uid, pid, parent, name in (line.split(None, 3) for line in lines)}
        main = str(container["State"]["Pid"])

        def descends(pid: str) -> bool:
            return pid == main or (pid in rows and descends(rows[pid][1]))

        ours = [(uid, name) for pid, (uid, _, name) in rows.items() if descends(pid)]
        assert ours, f"nothing runs in {container['Name']}"
        return {uid for uid, name in ours if name not in {"docker-init", "tini"}}

    def present(self, key: str) -> None:
        """Send this key with every request from now on."""
        self.key.touch(mode=0o600)
        self.key.write_text(f'header = "Authorization: Bearer {key}"\n')

    def curl(self, path: str, *options: str, told: str = "") -> str:
        """The body of the answer, which must be a success; the key is on no command line."""
        common = ("--silent", "--show-error", "--fail-with-body", "--config", str(self.key))
        return run("curl", *common, *options, f"{self.url}{path}", told=told)

    def get(self, path: str) -> dict[str, Any]:
        return dict(json.loads(self.curl(path)))

    def logs(self) -> str:
        """The end of what our own containers and the database said."""
        return self.compose("logs", "--no-color", "--timestamps", "--tail", "60", "api", "worker", "postgres")

    def down(self) -> None:
        self.compose("--profile", "gpu", "down", "--volumes", "--remove-orphans", "--timeout", "40")
        mine = ("--quiet", "--filter", f"label=com.docker.compose.project={PROJECT}")
        left = [run("docker", kind, "ls", *mine).split() for kind in ("container", "volume", "network")]
        assert left == [[], [], []], f"left behind: {left}"
