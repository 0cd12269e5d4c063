"""The cost of faults, as distributions: takeovers, cancels, pauses, stops, a broker that hangs.

python -m bench.reliability [--rounds 5]

A real api, two workers, SQLite and a broker, with the service's own timings. Each round kills a busy worker with
SIGKILL (its jobs are taken over by the other), stops one with SIGTERM, and cancels and pauses running jobs.
"""

import argparse
import math
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from core.db.migrate import upgrade_schema
from core.recipe.data.materialise import materialise_dataset, read_data
from tests.support.broker import Broker, running_broker
from tests.support.service import TIMINGS, Job, Part, Service, make_home, until

SLOTS = 2
POSTS = 300
LONG: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "epochs": 20_000,
}
SHORT = LONG | {"epochs": 1}
Found = dict[str, list[float]]


def trains(service: Service, count: int) -> list[str]:
    """`count` running jobs, each past its first checkpoint."""
    jobs = [service.submit(LONG) for _ in range(count)]
    for job_id in jobs:
        until("a checkpoint", partial(service.checkpoints, job_id))
    return jobs


def owned(worker: Part, jobs: list[str]) -> list[str]:
    """The jobs that this worker trains: its log names them when they begin."""
    return [job_id for job_id in jobs if job_id in worker.said]


def kill(service: Service, found: Found) -> None:
    """SIGKILL to a worker: how long until each of its jobs makes a step again, and how many steps are made twice."""
    jobs = trains(service, 2 * SLOTS)
    victim = service.workers[0]
    lost = owned(victim, jobs)
    for job_id in set(jobs) - set(lost):
        service.http.post(f"/v1/jobs/{job_id}/cancel")
    steps = {job_id: service.job(job_id)["progress"]["step"] for job_id in lost}
    victim.kill()
    began = time.monotonic()
    while lost:
        for job_id in list(lost):
            job = service.job(job_id)
            if resumed(job):
                found["takeover after SIGKILL of a worker, s"].append(time.monotonic() - began)
                found["steps lost by it"].append(max(0, steps[job_id] - resumed_from(job)))
                lost.remove(job_id)
        time.sleep(0.02)
    end(service, jobs)
    service.heal(workers=2)


def resumed(job: Job) -> bool:
    return bool(job["attempt"] == 2 and job["status"] == "running" and job["progress"]["step"] > resumed_from(job))


def resumed_from(job: Job) -> int:
    detail = next(entry["detail"] for entry in reversed(job["timeline"]) if entry["status"] == "running")
    return int(detail.rpartition("from step ")[2]) if "from step" in detail else 0


def stop(service: Service, found: Found) -> None:
    """SIGTERM to a worker: how long it takes, and how many steps its jobs lose."""
    jobs = trains(service, 2 * SLOTS)
    victim = service.workers[0]
    mine = owned(victim, jobs)
    began = time.monotonic()
    steps = {job_id: service.job(job_id)["progress"]["step"] for job_id in mine}
    victim.stop()
    found["stop by SIGTERM, s"].append(time.monotonic() - began)
    for job_id in mine:
        newest = max(each["step"] for each in service.checkpoints(job_id) if each["kind"] == "last")
        found["steps lost by it (more than 0: a step of its last report is gone)"].append(
            max(0, steps[job_id] - newest)
        )
    end(service, jobs)
    service.heal(workers=2)


def wishes(service: Service, found: Found) -> None:
    """Pause and cancel of running jobs: the seconds until the answer, and until the request is carried out."""
    jobs = trains(service, 2)
    for job_id, verb, status in zip(jobs, ("pause", "cancel"), ("paused", "cancelled"), strict=True):
        began = time.monotonic()
        service.http.post(f"/v1/jobs/{job_id}/{verb}")
        found[f"answer to a {verb}, ms"].append(1000 * (time.monotonic() - began))
        service.when(job_id, partial(is_now, status))
        found[f"{verb}, s"].append(time.monotonic() - began)
    end(service, jobs)


def is_now(status: str, job: Job) -> bool:
    return bool(job["status"] == status)


def end(service: Service, jobs: list[str]) -> None:
    for job_id in jobs:
        service.http.post(f"/v1/jobs/{job_id}/cancel")
    for job_id in jobs:
        service.ended(job_id)


def hung(service: Service, broker: Broker, found: Found) -> None:
    """Posts while the broker is stopped by SIGSTOP, and how long a job then waits for a free slot."""
    broker.signal(signal.SIGSTOP)
    posted = []
    for _ in range(POSTS):
        began = time.monotonic()
        posted.append(service.submit(SHORT | {"resources": {"device": "gpu"}}))  # no slot takes them
        found["POST /v1/jobs while the broker hangs, ms"].append(1000 * (time.monotonic() - began))
    for _ in range(20):
        began = time.monotonic()
        job_id = service.submit(SHORT)
        service.when(job_id, lambda job: job["status"] != "queued")
        found["start of a job while the broker hangs, s"].append(time.monotonic() - began)
        service.ended(job_id)
    broker.signal(signal.SIGCONT)
    for job_id in posted:
        service.http.post(f"/v1/jobs/{job_id}/cancel")


def percentile(values: list[float], share: float) -> float:
    """The smallest value that a share `share` of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    found: Found = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder, running_broker() as broker:
        url = f"sqlite:///{folder}/basin.db"
        upgrade_schema(url)
        home = make_home(
            Path(folder) / "home", lambda name: materialise_dataset(read_data(name), Path(folder) / "datasets")
        )
        service = Service(home, url, broker.url)
        service.environment = {name: value for name, value in service.environment.items() if name not in TIMINGS}
        service.slots = SLOTS
        service.heal(workers=2)
        for _ in range(options.rounds):
            kill(service, found)
            stop(service, found)
            for _ in range(4):
                wishes(service, found)
        hung(service, broker, found)
        service.stop()
    print("| figure | n | median | p99 | worst |\n|---|---|---|---|---|")
    for title, values in found.items():
        row = (statistics.median(values), percentile(values, 0.99), max(values))
        print(f"| {title} | {len(values)} | {' | '.join(f'{value:.4g}' for value in row)} |")


if __name__ == "__main__":
    main()
