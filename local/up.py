"""One run of the embedded service: lock, port, schema, broker, api, worker. The broker is stopped last."""

import fcntl
import http.client
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from core.errors import Misconfigured
from core.settings import Settings
from local import broker
from local.processes import ProcessMonitor, ServiceProcess, Tell, stop_processes

START_SECONDS: Final = 60.0
BROKER_SECONDS: Final = 5.0
PARTS_GRACE: Final = 7.0  # with the broker's one second and the kernel's work, everything is gone within 10 s
WORKER_GRACE: Final = 5.0  # for a checkpoint of a running job
BROKER_GRACE: Final = 1.0
GLANCE_SECONDS: Final = 0.1


class StopSignals:
    """One SIGINT, SIGTERM or SIGHUP requests a stop; a second one kills at once."""

    def __init__(self) -> None:
        self.count = 0

    def install_handlers(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or the background of a shell script
                signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.count += 1

    def stop_requested(self) -> bool:
        return self.count > 0

    def kill_requested(self) -> bool:
        return self.count > 1


def run_service(settings: Settings, slots: int, tell: Tell) -> None:
    """Runs the service until a signal ends it; without slots there is no worker.

    Raises:
        Misconfigured: it cannot start; the message has the cause.
    """
    signals = StopSignals()
    signals.install_handlers()
    with lock_home(settings) as announce:
        settings = settings.model_copy(update={"port": free_port(settings.host, settings.port)})
        url = f"http://{url_host(settings.host)}:{settings.port}"
        announce(url)
        run_migrations(settings, signals)
        monitors = [ProcessMonitor(part, tell) for part in service_processes(settings, slots)]
        try:
            start_processes(monitors, settings, signals, tell)
            if not signals.stop_requested():
                tell(startup_message(url, settings, slots))
            while not signals.stop_requested():
                for monitor in monitors:
                    monitor.restart_if_dead()
                time.sleep(GLANCE_SECONDS)
            tell("stopping; a running job continues at the next start")
        finally:
            stop_processes([one for one in monitors if one.part.name != "broker"], PARTS_GRACE, signals.kill_requested)
            stop_processes(monitors, BROKER_GRACE, signals.kill_requested)


@contextmanager
def lock_home(settings: Settings) -> Iterator[Callable[[str], None]]:
    """Locks this home for one service at a time. Yields a function that stores the service's URL in the file."""
    path = settings.run / "up.lock"
    try:
        settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        broker.private_folder(settings.run)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise Misconfigured(f"cannot use {settings.home}: {error.strerror}; BASIN_HOME names another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Misconfigured(f"already running in {settings.home}{read_address(path)}") from error

        def write_address(url: str) -> None:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "url": url}))
            file.flush()

        yield write_address


def read_address(path: Path) -> str:
    """The URL and pid of the process that holds the lock, as `: URL (process PID)`; empty if it has stored none yet."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        other = json.loads(path.read_text(encoding="utf-8"))
        return f": {other['url']} (process {other['pid']})"
    return ""


def url_host(host: str) -> str:
    """The host as URLs spell it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def free_port(host: str, port: int) -> int:
    """The port itself, or a free one for 0.

    Raises:
        Misconfigured: the port is in use, or the address is not one of this machine.
    """
    for patience in (0.2, 0.4, 0.8, 0.0):  # an api whose `up` was just killed needs a moment to end
        try:
            family, *_, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
            with socket.create_server((str(address[0]), port), family=family) as probe:
                return int(probe.getsockname()[1])
        except OSError as error:
            reason = error.strerror
        time.sleep(patience)
    raise Misconfigured(f"cannot listen on {host}:{port} ({reason}); another port: --port, or BASIN_PORT")


def basin_command(*arguments: str) -> tuple[str, ...]:
    """The command line of a `basin` command, run by the same Python."""
    return (sys.executable, "-m", "basin", *arguments)


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of every part: our home, and no imports from the working directory."""
    return {"PYTHONSAFEPATH": "1", "BASIN_HOME": str(settings.home)}


def run_migrations(settings: Settings, signals: StopSignals) -> None:
    """Migrates the database to this release's schema, in a child process, so that its imports take no memory here.

    Raises:
        Misconfigured: the migration failed; the message holds the end of its log.
    """
    part = ServiceProcess(
        "migrate", basin_command("migrate"), child_environment(settings), settings.logs / "migrate.log"
    )
    monitor = ProcessMonitor(part, lambda _: None)
    monitor.start()
    while monitor.is_running and not signals.kill_requested():
        time.sleep(GLANCE_SECONDS / 5)
    if monitor.kill_and_reap() != 0 and not signals.stop_requested():
        raise Misconfigured(f"the database cannot be brought to this release's schema\n{monitor.tail_log(3)}")


def service_processes(settings: Settings, slots: int) -> list[ServiceProcess]:
    """The parts in the order of their start."""
    api = {"BASIN_HOST": settings.host, "BASIN_PORT": str(settings.port)}
    worker = {"BASIN_STOP_GRACE_SECONDS": str(min(settings.stop_grace_seconds, WORKER_GRACE))}
    made = [ServiceProcess("api", basin_command("api"), child_environment(settings) | api, settings.logs / "api.log")]
    if slots:
        command = basin_command("worker", "--slots", str(slots))
        made.append(
            ServiceProcess("worker", command, child_environment(settings) | worker, settings.logs / "worker.log")
        )
    server = broker.find_server_binary() if settings.broker_url is None else None
    return [broker.broker_process(server, settings), *made] if server else made


def start_processes(monitors: Sequence[ProcessMonitor], settings: Settings, signals: StopSignals, tell: Tell) -> None:
    """Starts the parts and waits until the api answers.

    Raises:
        Misconfigured: the api ended instead; without it there is no service.
    """
    by_name = {monitor.part.name: monitor for monitor in monitors}
    if "broker" in by_name and not signals.stop_requested():
        by_name["broker"].start()
        if not wait_until(
            lambda: broker.socket_answers(settings.broker_socket), by_name["broker"], BROKER_SECONDS, signals
        ):
            tell(f"the broker does not answer; jobs start a little later without it. See {settings.logs}/broker.log")
    for monitor in monitors:
        if monitor.part.name != "broker" and not signals.stop_requested():
            monitor.start()
    api = by_name["api"]
    if not wait_until(lambda: api_answers(settings), api, START_SECONDS, signals) and not signals.stop_requested():
        raise Misconfigured(f"the api did not start; the end of {api.part.log}:\n{api.tail_log()}")


def wait_until(condition: Callable[[], bool], monitor: ProcessMonitor, seconds: float, signals: StopSignals) -> bool:
    """Waits until the condition holds; False when the part ended, time is over, or a stop was requested."""
    deadline = time.monotonic() + seconds
    while monitor.is_running and time.monotonic() < deadline and not signals.stop_requested():
        if condition():
            return True
        time.sleep(0.02)
    return False


def api_answers(settings: Settings) -> bool:
    """Whether the api answers /healthz."""
    connection = http.client.HTTPConnection(settings.host.strip("[]"), settings.port, timeout=1.0)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def startup_message(url: str, settings: Settings, slots: int) -> str:
    """The message once the service is ready: URL, slots, files, how to stop."""
    workers = f"one worker with {slots} slot{'s' if slots > 1 else ''}" if slots else "no worker"
    return "\n".join(
        (
            f"Basin is running at {url} ({workers})",
            f"  API docs  {url}/docs",
            f"  files     {settings.home} (logs in {settings.logs})",
            "  stop      Ctrl-C",
        )
    )
