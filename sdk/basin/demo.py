"""`basin demo`: a real job over HTTP, from the POST to the downloaded weights."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, resources
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NoReturn

from basin import actions, job_file, terminal_output
from basin.client import Client
from basin.errors import BadFile, BasinError, NotThere, Unreachable
from basin.progress import follow_job
from basin.session import CliSession, print_still_running
from basin.shapes import Job

JOB = "digits-cosine-swa.yaml"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


def run_demo(url: str | None, key: str | None = None) -> int:
    """Trains the demo's job at `url`, or with a service that it starts. Returns exit code 0 if the job succeeded."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, exit_on_signal)  # the cleanup then stops a service that the demo started
    spec = job_file.parse_job(resources.files("basin").joinpath(JOB).read_text(encoding="utf-8"), JOB)
    terminal_output.print_lines(
        "Handwritten digits, a network of two hidden layers, SGD with Nesterov momentum, cosine, SWA."
    )
    try:
        with running_service(url) as (address, ours), Client(address, key) as client:
            job = client.submit(spec)
            terminal_output.print_lines(f"POST {address}/v1/jobs  ->  201 {job.id}")
            return follow_demo_job(client, job, ours=ours)
    except KeyboardInterrupt:
        terminal_output.print_lines("interrupted", stderr=True)
        return 130


def exit_on_signal(number: int, _frame: object) -> NoReturn:
    """Turns a terminating signal into SystemExit, so that context managers clean up."""
    sys.exit(128 + number)


def follow_demo_job(client: Client, job: Job, *, ours: bool) -> int:
    """Follows the job, prints its results and downloads its weights. Returns the exit code."""
    try:
        ended = follow_job(client, job.id)
    except KeyboardInterrupt:
        if ours:
            terminal_output.print_lines("", f"{job.id} continues at the next start:  basin up", stderr=True)
        else:
            print_still_running(CliSession(client.url, json=False), job.id)
        return 130
    if ended.status != "succeeded":
        terminal_output.print_ending(ended)
        return 1
    terminal_output.print_lines("")
    terminal_output.print_results(ended.results or {}, splits=("test",))
    found = actions.choose_checkpoint(client.checkpoints(job.id), "swa", job.id)
    folder = Path(os.environ.get("BASIN_HOME") or ".basin") / "demo"
    path = client.download(found, folder / f"{job.id}-swa.safetensors")
    later = "  (while the service runs: make up, or basin up)" if ours else ""
    terminal_output.print_lines(
        "", f"SWA weights  {path}", f"SHA-256      {found.sha256}", f"API docs     {client.url}/docs{later}"
    )
    return 0


@contextmanager
def running_service(url: str | None) -> Iterator[tuple[str, bool]]:
    """The address of a service that answers, and whether it was started here; such a service is stopped on exit."""
    wanted = url or os.environ.get("BASIN_URL")
    port = os.environ.get("BASIN_PORT") or "8000"
    if not port.isdecimal():
        raise BadFile(f"BASIN_PORT is {port!r}, which is not a port number")
    address = (wanted or f"http://127.0.0.1:{port}").rstrip("/")
    if service_answers(address):
        terminal_output.print_lines(f"The service at {address} is used.")
        yield address, False
        return
    if wanted:
        raise Unreachable(address, "the demo starts a service of its own only when no address is given")
    if not any(entry.name == "up" for entry in metadata.entry_points(group="basin.commands")):
        raise NotThere("no service answers and no server is installed here: give the address of one with --url")
    with TemporaryFile() as output, start_service(free_port(int(port)), output) as address:
        yield address, True
        terminal_output.print_lines("", "stopping the service")


def service_answers(address: str) -> bool:
    """Whether a Basin service answers at the address."""
    try:
        with Client(address, timeout=2.0) as client:
            return client.alive()
    except BasinError:
        return False


def free_port(wanted: int) -> int:
    """The wanted port, or any free port when another process uses it. Raises NotThere when there is none."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise NotThere("this machine has no free port")


@contextmanager
def start_service(port: int, output: IO[bytes], *options: str) -> Iterator[str]:
    """Starts `basin up` with `options`, yields its address once it answers, and stops it on exit."""
    terminal_output.print_lines("starting the service …")
    command = [sys.executable, "-P", "-m", "basin", "up", "--host", "127.0.0.1", "--port", str(port), *options]
    up = subprocess.Popen(  # noqa: S603 - our own command; in its own session Ctrl-C does not reach it
        command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + START_SECONDS
        while not service_answers(address):
            if up.poll() is not None or time.monotonic() > deadline:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()
                raise NotThere(f"the service did not start\n{said}")
            time.sleep(0.05)
        yield address
    finally:
        up.terminate()
        try:
            up.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            up.kill()
            up.wait()
