"""A checkout of any release as a service of its own, used by what no release renames: `basin up` and HTTP."""

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

Json = dict[str, Any]
ENDED = {"succeeded", "failed", "cancelled"}
START_SECONDS = 90.0
STOP_SECONDS = 30.0
JOB_SECONDS = 180.0
POLL_SECONDS = 0.03


@dataclass(frozen=True)
class Checkout:
    """The tree of a release, and the Python that runs it."""

    tree: Path
    python: Path

    @classmethod
    def at(cls, tree: Path, python: Path | None = None) -> "Checkout":
        """By default with the virtual environment of the tree. Symbolic links stay: Python finds its packages by them.

        Raises:
            FileNotFoundError: there is no such Python.
        """
        found = (python or tree / ".venv" / "bin" / "python").absolute()
        if not found.exists():
            raise FileNotFoundError(f"{found}: name the Python that runs {tree}")
        return cls(tree.resolve(), found)

    def command(self, *arguments: str) -> list[str]:
        """A `basin` command of this release."""
        return [str(self.python), "-m", "basin", *arguments]

    def environment(self, home: Path) -> dict[str, str]:
        """No setting of ours, and no other checkout on the path."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("BASIN_", "PYTHONPATH"))}
        path = os.pathsep.join((str(self.tree), str(self.tree / "sdk")))
        return {**ours, "BASIN_HOME": str(home), "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}

    def output(self, home: Path, *arguments: str) -> str:
        """What a command prints; raises CalledProcessError where it fails."""
        command, environment = self.command(*arguments), self.environment(home)
        found = subprocess.run(command, cwd=home, env=environment, check=True, capture_output=True, text=True)
        return found.stdout


class ReleaseApi:
    """The HTTP interface of a running release."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http

    def get(self, path: str) -> Json:
        return dict(self.response("GET", path).json())

    def post(self, path: str, body: Json | None = None) -> Json:
        return dict(self.response("POST", path, body or {}).json())

    def response(self, method: str, path: str, body: Json | None = None) -> httpx2.Response:
        """The answer; raises RuntimeError with its text where it is a refusal."""
        answer = self._http.request(method, path, json=body)
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def submit(self, spec: Json, collection: str = "jobs") -> str:
        """The id of a new job, or of a new analysis."""
        return str(self.post(f"/v1/{collection}", spec)["id"])

    def wait_for(self, job_id: str, holds: Callable[[Json], object], collection: str = "jobs") -> Json:
        """The job as soon as `holds` says yes; raises where it does not in time, or ends before."""
        deadline = time.monotonic() + JOB_SECONDS
        while True:
            found = self.get(f"/v1/{collection}/{job_id}")
            if holds(found):
                return found
            if found["status"] in ENDED or time.monotonic() > deadline:
                raise RuntimeError(f"{job_id} is {found['status']}: {found['error']}")
            time.sleep(POLL_SECONDS)

    def wait_for_end(self, job_id: str, collection: str = "jobs") -> Json:
        return self.wait_for(job_id, lambda found: found["status"] in ENDED, collection)

    def wait_for_step(self, job_id: str, step: int) -> Json:
        return self.wait_for(job_id, lambda found: found["progress"].get("step", 0) >= step)

    def wait_for_status(self, job_id: str, status: str) -> Json:
        return self.wait_for(job_id, lambda found: found["status"] == status)


@contextmanager
def running_release(checkout: Checkout, home: Path, *options: str) -> Iterator[ReleaseApi]:
    """`basin up` of the checkout over this home, from its first answer to its end."""
    home.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = checkout.command("up", "--port", str(port), *options)
    with (home / "up.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=home, env=checkout.environment(home), stdout=log, stderr=log)
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as http:
            _await_answer(process, http, home / "up.log")
            yield ReleaseApi(http)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_answer(process: subprocess.Popen[bytes], http: httpx2.Client, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(httpx2.TransportError):
            if http.get("/healthz").status_code == 200:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service did not start:\n{log.read_text(errors='replace')}")
        time.sleep(POLL_SECONDS)
