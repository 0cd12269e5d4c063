"""The cost of event streams for the API: many idle readers, and many readers of one job that makes progress.

    python bench/sse.py [streams] [seconds]

Starts `python -m api` on SQLite, opens the streams (500; aims: below 1 core, below 200 MB, no thread per stream), and
prints CPU seconds per second, resident memory and threads: without readers, with each at a job of its own that waits,
with all at one job, and with all at one job that reports twice a second.
"""

import asyncio
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from core.db.migrate import upgrade_schema
from core.db.session import Database, open_database
from core.jobs.attempt.fence import Fence
from core.jobs.attempt.heartbeat import record_heartbeat
from core.jobs.metrics.chunks import Chunk, MetricPoints, record_points
from core.jobs.queue.claim import claim_job
from core.jobs.queue.submit import create_job
from core.recipe.parse import parse_job
from core.recipe.plan import resolve_plan

ROOT = Path(__file__).resolve().parents[1]
JOB = b'{"model":{"name":"logistic"},"data":{"name":"iris"},"optimizer":{"name":"adam"},"epochs":10}'
Streams = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]


async def opened(port: int, jobs: list[str]) -> Streams:
    """A stream for each of these ids, past its first event."""
    streams = []
    for job_id in jobs:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"
        writer.write(head.encode())
        streams.append((reader, writer))
    for reader, _ in streams:
        answer = await asyncio.wait_for(reader.readuntil(b"event: status\n"), 60)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(answer[:200])
    return streams


async def drain(reader: asyncio.StreamReader, seen: list[int]) -> None:
    """Read what comes, and count the bytes."""
    while piece := await reader.read(65_536):
        seen[0] += len(piece)


async def measured(name: str, api: psutil.Process, seconds: float, streams: Streams) -> None:
    """One line of the table, over that many seconds."""
    seen = [0]
    readers = [asyncio.create_task(drain(reader, seen)) for reader, _ in streams]
    await asyncio.sleep(2)  # the cost of opening them is not counted
    before, began, heard = api.cpu_times(), time.monotonic(), seen[0]
    await asyncio.sleep(seconds)
    after, passed = api.cpu_times(), time.monotonic() - began
    cores = (after.user - before.user + after.system - before.system) / passed
    rate = (seen[0] - heard) / passed / 1e3
    print(f"{name:<34}{cores:8.3f}{api.memory_info().rss / 1e6:10.1f}{api.num_threads():9}{rate:10.1f}", flush=True)
    for task in readers:
        task.cancel()
    for _, writer in streams:
        writer.close()
    await asyncio.sleep(2)


def moves(db: Database, job_id: str) -> Callable[[int], None]:
    """Claim the job; each call is then half a second of its training: a heartbeat, and 50 points of four series."""
    spec = parse_job(JOB).resolved()
    found = claim_job(
        db, worker="bench", needs=("any",), plan_for=lambda _: resolve_plan(spec, "cpu"), lease_seconds=3600
    )
    if found is None or found.job_id != job_id:
        raise RuntimeError("the first job was not the first to be claimed")
    fence = Fence(job_id, found.attempt)

    def move(turn: int) -> None:
        steps = list(range(50 * turn, 50 * turn + 50))
        points = ([step / 7 for step in steps], [time.time()] * 50)
        names = ("train.loss", "lr", "val.loss", "throughput")
        record_heartbeat(
            db, fence, lease_seconds=3600, progress={"step": steps[-1], "steps": 10**6, "loss": 1 / (turn + 1)}
        )
        record_points(db, fence, [Chunk(name, 0, turn, MetricPoints(name, steps, *points)) for name in names])

    return move


async def moving(move: Callable[[int], None]) -> None:
    for turn in range(10**6):
        await asyncio.to_thread(move, turn)
        await asyncio.sleep(0.5)


async def benched(url: str, port: int, api: psutil.Process, count: int, seconds: float) -> None:
    db = open_database(url)
    jobs = [create_job(db, parse_job(JOB).resolved(), owner="local").job_id for _ in range(count)]
    print(f"{'':<34}{'cores':>8}{'MB':>10}{'threads':>9}{'kB/s':>10}")
    await measured("no reader", api, seconds, [])
    await measured(f"{count} readers of {count} waiting jobs", api, seconds, await opened(port, jobs))
    await measured(f"{count} readers of one waiting job", api, seconds, await opened(port, count * jobs[:1]))
    streams = await opened(port, count * jobs[:1])
    training = asyncio.create_task(moving(await asyncio.to_thread(moves, db, jobs[0])))
    await measured(f"{count} readers of one moving job", api, seconds, streams)
    training.cancel()
    db.close()


def main(count: int = 500, seconds: float = 20.0) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * count + 200)), hard))
    with tempfile.TemporaryDirectory() as home, (Path(home) / "log").open("w+") as log:
        url = f"sqlite:///{home}/basin.db"
        upgrade_schema(url)
        environment = os.environ | {"BASIN_HOME": home, "BASIN_MAX_STREAMS": str(count)}
        command = [sys.executable, "-m", "api", "--port", "0"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            while not (found := re.search(r"listening on http://[^:]+:(\d+)", Path(log.name).read_text())):
                if process.poll() is not None:
                    raise RuntimeError(Path(log.name).read_text())
                time.sleep(0.05)
            asyncio.run(benched(url, int(found[1]), psutil.Process(process.pid), count, seconds))
        finally:
            process.terminate()
            process.wait(10)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
