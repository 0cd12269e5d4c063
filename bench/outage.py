"""Jobs whose database is away: what they lose, and where their data waits.

python -m bench.outage [--minutes 10] [--hang]

A real api and a real worker on a PostgreSQL of their own, with the service's own timings. Two jobs train, and one of
them records every step. Then the server is ended at once, or with --hang stopped by SIGSTOP with all of its
connections, for `--minutes`. Afterwards every point of every step must be stored, and no job may have begun again.
"""

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import psutil

from core.db.migrate import upgrade_schema
from core.jobs.metrics.chunks import read_series
from core.recipe.data.materialise import materialise_dataset, read_data
from tests.support.broker import running_broker
from tests.support.postgres import Cluster, server_binaries
from tests.support.service import TIMINGS, Job, Service, make_home

QUIET: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "epochs": 10**6,
    "log_every": 50,
}
TALKATIVE = QUIET | {"log_every": 1}
BEFORE = 500  # steps that a job has made when the database goes
PATIENCE = 900.0  # seconds for what waited to be written
MB = 1e6


@dataclass
class Seen:
    """What was observed while the database was away."""

    answers: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: list[int] = field(default_factory=list)
    spilled: int = 0
    scratch: int = 0

    def look(self, service: Service, job_id: str) -> None:
        """Record the worker's memory, the size of the files that wait, and the answer of the api."""
        self.memory.append(psutil.Process(service.worker.pid).memory_info().rss)
        sizes = {path: size_of(path) for path in (service.home / "scratch").rglob("*")}
        self.spilled = max(self.spilled, sum(size for path, size in sizes.items() if path.name == "spill"))
        self.scratch = max(self.scratch, sum(sizes.values()))
        begun = time.monotonic()
        try:
            self.answers[str(service.http.get(f"/v1/jobs/{job_id}").status_code)] += 1
        except httpx2.TimeoutException:
            self.answers["none within 20 s"] += 1
        self.slowest = max(self.slowest, time.monotonic() - begun)


def size_of(path: Path) -> int:
    """The size of a file in bytes; 0 if it no longer exists."""
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def away(service: Service, cluster: Cluster, job_id: str, seconds: float, *, hang: bool) -> tuple[Seen, float]:
    """The outage; the second value is how long it took until the api answered again."""
    seen = Seen()
    cluster.signal_all(signal.SIGSTOP) if hang else cluster.crash()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        seen.look(service, job_id)
        time.sleep(2.0)
    cluster.signal_all(signal.SIGCONT) if hang else cluster.start()
    begun = time.monotonic()
    while service.http.get(f"/v1/jobs/{job_id}").status_code != 200:
        time.sleep(0.1)
    return seen, time.monotonic() - begun


def caught_up(service: Service, job_id: str, step: int) -> tuple[list[int], float]:
    """The steps of the stored losses, and the seconds until those up to `step` were stored."""
    begun = time.monotonic()
    while True:
        with service.database() as db:
            steps = list(read_series(db, job_id)["train.loss"].steps)
        width = steps[1] - steps[0]
        if steps[-1] + width >= step:
            return steps, time.monotonic() - begun
        if time.monotonic() > begun + PATIENCE:
            raise TimeoutError(f"{job_id} has no more than step {steps[-1]} of {step}")
        time.sleep(1.0)


def gaps(steps: list[int]) -> int:
    """How many points are missing, where all of them are equally far apart."""
    width = steps[1] - steps[0]
    return sum((after - before) // width - 1 for before, after in pairwise(steps))


def measure(service: Service, cluster: Cluster, seconds: float, *, hang: bool) -> list[tuple[str, str]]:
    """One outage, as rows of a table."""
    jobs = {name: service.submit(spec) for name, spec in (("quiet", QUIET), ("talkative", TALKATIVE))}
    before: dict[str, Job] = {job_id: service.when_at(job_id, BEFORE) for job_id in jobs.values()}
    memory = psutil.Process(service.worker.pid).memory_info().rss
    seen, back = away(service, cluster, jobs["quiet"], seconds, hang=hang)
    rows = [
        ("database away, s", f"{seconds:.0f}"),
        ("the api's answers meanwhile", ", ".join(f"{count} of {code}" for code, count in seen.answers.items())),
        ("the slowest of them, s", f"{seen.slowest:.2f}"),
        ("api answers again after, s", f"{back:.2f}"),
        ("worker's memory before / most / last, MB", " / ".join(f"{n / MB:.0f}" for n in peaks(memory, seen))),
        ("spilled at most, MB", f"{seen.spilled / MB:.1f}"),
        ("waiting on disk at most, checkpoints too, MB", f"{seen.scratch / MB:.1f}"),
    ]
    for name, job_id in jobs.items():
        step = before[job_id]["progress"]["step"]
        now = service.when(job_id, lambda job, step=step: job["progress"]["step"] > step, 120.0)
        steps, seconds_more = caught_up(service, job_id, now["progress"]["step"])
        after = service.job(job_id)
        rows += [
            (f"{name}: status, attempts", f"{after['status']}, {after['attempt']}"),
            (f"{name}: steps before / when the database was back", f"{step} / {now['progress']['step']}"),
            (f"{name}: losses written / missing", f"{len(steps)} / {gaps(steps)}"),
            (f"{name}: all written after, s", f"{seconds_more:.1f}"),
        ]
    for job_id in jobs.values():
        service.http.post(f"/v1/jobs/{job_id}/cancel")
    return rows


def peaks(before: int, seen: Seen) -> tuple[int, int, int]:
    return before, max(seen.memory), seen.memory[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hang", action="store_true", help="SIGSTOP instead of an end")
    options = parser.parse_args()
    os.nice(19)  # the two jobs train all the time, at the lowest CPU priority
    aside, cluster_folder = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp(prefix="basin-pg-"))
    cluster = Cluster(cluster_folder, server_binaries(), settings=())
    try:
        with running_broker() as broker:
            cluster.start()
            upgrade_schema(cluster.url)
            home = make_home(aside / "home", lambda name: materialise_dataset(read_data(name), aside / "datasets"))
            service = Service(home, cluster.url, broker.url)
            service.environment = {name: value for name, value in service.environment.items() if name not in TIMINGS}
            service.slots = 2
            try:
                service.heal()
                rows = measure(service, cluster, 60.0 * options.minutes, hang=options.hang)
            finally:
                service.stop()
    finally:
        cluster.crash()
        shutil.rmtree(cluster_folder, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)
    print("| figure | value |\n|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
