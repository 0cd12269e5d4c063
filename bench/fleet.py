"""The load of idle workers on PostgreSQL: statements, transactions, connections, and the share of a core that it uses.

    python -m bench.fleet [--workers 100] [--seconds 30] [--processes 4]

The database's side of each worker is real: a pool of its own, the poll, the reconciler, the reporter. Launcher, torch
and broker are left out: they do not use the database. Aims for 100: at most 130 connections, 3 % of a core.
"""

import argparse
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, cast

import psutil
import psycopg
from sqlalchemy import Engine, event
from sqlalchemy.engine import make_url

from core.db.migrate import upgrade_schema
from core.db.session import open_database
from core.jobs.attempt.reconcile import Reconciler
from core.queue import Hints
from core.settings import Settings
from core.store.local import LocalStore
from tests.support.databases import Server
from tests.support.postgres import shared_server
from worker.attempt import Slot, WorkerContext
from worker.slots import SlotPoller, SlotPool
from worker.worker_report import WorkerReporter

SETTLE_SECONDS = 25.0  # the cost of starting is not counted


def start(settings: Settings, name: str, stack: ExitStack) -> None:
    """One idle worker with two slots, until the stack is closed."""
    db = open_database(settings.resolved_database_url(), trusting=True)
    stack.callback(db.close)
    store = LocalStore(settings.home / "store")
    nothing = cast("Any", None)
    context = WorkerContext(name, settings, db, store, nothing, nothing, threading.Event())
    slots = SlotPool([Slot(0, "cpu"), Slot(1, "cpu")])
    reconciler = Reconciler(db, store, Hints(settings), settings)
    reporter, poll = WorkerReporter(context, slots), SlotPoller(context, slots)
    for part in (reconciler, reporter, poll):
        part.start()
    stack.callback(reconciler.stop)
    stack.callback(reporter.stop)
    stack.callback(poll.stop)
    stack.callback(context.stopping.set)


def serve(url: str, home: Path, workers: int) -> None:
    """Idle workers in this process; a line on stdin is answered by the number of statements so far."""
    numbers = count()
    statements = [0]
    event.listen(Engine, "before_cursor_execute", lambda *_: statements.__setitem__(0, next(numbers) + 1))
    settings = Settings.model_validate({"home": home, "database_url": url, "broker_url": "redis://127.0.0.1:1/0"})
    with ExitStack() as stack:
        for number in range(workers):
            start(settings, f"idle-{home.name}-{number}", stack)
            time.sleep(2.0 / workers)  # they were not all started at the same moment
        for _ in sys.stdin:
            print(statements[0], flush=True)


class Fleet:
    """The processes that serve."""

    def __init__(self, url: str, folder: Path, workers: int, processes: int) -> None:
        self.parts = []
        for number in range(processes):
            home = folder / str(number)
            home.mkdir()
            share = workers // processes + (number < workers % processes)
            command = [sys.executable, "-m", "bench.fleet", "--serve", url, "--home", str(home)]
            command += ["--workers", str(share)]
            self.parts.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))

    def statements(self) -> int:
        total = 0
        for part in self.parts:
            if part.stdin is None or part.stdout is None:
                raise RuntimeError("its pipes are gone")
            print(file=part.stdin, flush=True)
            total += int(part.stdout.readline())
        return total

    def stop(self) -> None:
        for part in self.parts:
            part.communicate(timeout=120)


def spent(postmaster: psutil.Process) -> float:
    """CPU seconds of the server and of all its processes, past and present."""
    own = postmaster.cpu_times()
    total = own.user + own.system + own.children_user + own.children_system
    for child in postmaster.children():
        times = child.cpu_times()
        total += times.user + times.system
    return float(total)


def measure(fleet: Fleet, url: str, seconds: float) -> None:
    """One line for each number, over that many seconds."""
    with psycopg.connect(url, autocommit=True) as own:
        name = make_url(url).database

        def asked(query: str) -> int:
            row = own.execute(query, (name,)).fetchone()
            return int(row[0]) if row else 0

        folder = own.execute("SHOW data_directory").fetchone()
        pid = int((Path(folder[0] if folder else "") / "postmaster.pid").read_text().splitlines()[0])
        postmaster, open_now = psutil.Process(pid), []
        commits = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
        before = (fleet.statements(), asked(commits), spent(postmaster), time.monotonic())
        while time.monotonic() - before[3] < seconds:
            time.sleep(0.5)
            open_now.append(asked("SELECT count(*) - 1 FROM pg_stat_activity WHERE datname = %s"))
        after = (fleet.statements(), asked(commits), spent(postmaster), time.monotonic())
        passed = after[3] - before[3]
    print(f"statements/s (without BEGIN, COMMIT, pings)  {(after[0] - before[0]) / passed:8.1f}")
    print(f"transactions/s                               {(after[1] - before[1]) / passed:8.1f}")
    print(f"connections, mean and most                   {statistics.mean(open_now):8.1f} {max(open_now):8}")
    print(f"PostgreSQL, share of a core                  {100 * (after[2] - before[2]) / passed:8.2f} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.home, options.workers)
        return
    with tempfile.TemporaryDirectory() as folder:
        server = Server(shared_server(Path(folder)), "")
        url = server.make(f"fleet_{secrets.token_hex(4)}")
        upgrade_schema(url)
        fleet = Fleet(url, Path(folder), options.workers, options.processes)
        try:
            time.sleep(SETTLE_SECONDS)
            measure(fleet, url, options.seconds)
        finally:
            fleet.stop()


if __name__ == "__main__":
    main()
