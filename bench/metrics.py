"""The throughput of writing points into the database, and the latency of a chart of a long run.

python -m bench.metrics [--points 1000000] [--chart 1000000,10000000]

The product's own fenced write: chunks of 1,000 points, 64 in a transaction, as a worker's recorder writes those of a
busy runner. Afterwards the first tenth is written ten more times: there must still be one point for each step. The
charts have 500 points, with every extreme. On SQLite, and on PostgreSQL with fsync on.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

from core.db.migrate import upgrade_schema
from core.db.session import Database, open_database
from core.jobs.attempt.fence import Fence
from core.jobs.metrics.chunks import CHUNK_POINTS, Chunk, MetricPoints, read_series, record_points
from tests.support.jobs import running
from tests.support.postgres import Cluster, server_binaries

NAME = "train.loss"
TOGETHER = 64  # chunks in a transaction
LOOKS = 15  # repeats of each chart


def chunks(first: int, last: int) -> Iterator[list[Chunk]]:
    """Transactions of chunks `first` … `last` - 1; the value of step t is t, so that the extremes are known."""
    for begin in range(first, last, TOGETHER):
        yield [_chunk(number) for number in range(begin, min(begin + TOGETHER, last))]


def _chunk(number: int) -> Chunk:
    steps = array("q", range(number * CHUNK_POINTS, (number + 1) * CHUNK_POINTS))
    return Chunk(NAME, 0, number, MetricPoints(NAME, steps, array("d", steps), array("d", steps)))


def written(db: Database, fence: Fence, first: int, last: int) -> float:
    """Seconds to write these chunks."""
    ready = list(chunks(first, last)) if last - first <= 10_000 else chunks(first, last)
    began = time.perf_counter()
    for some in ready:
        record_points(db, fence, some)
    return time.perf_counter() - began


def chart(db: Database, fence: Fence, most: int) -> tuple[float, float]:
    """Median and worst seconds of a chart of all points; its ends have to be those that were written."""
    seconds = []
    for _ in range(LOOKS):
        began = time.perf_counter()
        found = read_series(db, fence.job_id, [NAME], max_points=500)[NAME]
        seconds.append(time.perf_counter() - began)
        if (found.values[0], found.values[-1], len(found.values) <= 500) != (0.0, most - 1.0, True):
            raise SystemExit("the chart does not show what was written")
    return statistics.median(seconds), max(seconds)


def measure(url: str, points: int, charts: list[int]) -> None:
    """Prints the results of one database."""
    upgrade_schema(url)
    db = open_database(url)
    fence = running(db)
    first, count = points // CHUNK_POINTS, points // CHUNK_POINTS
    seconds = written(db, fence, 0, count)
    print(f"  {points / seconds:,.0f} points a second ({points:,} of them)")
    for _ in range(10):
        written(db, fence, 0, max(1, count // 10))
    whole = read_series(db, fence.job_id, [NAME])[NAME]
    print(f"  after 10 replays of a tenth: {len(whole.steps):,} points, {len(set(whole.steps)):,} steps")
    for wanted in sorted(charts):
        last = wanted // CHUNK_POINTS
        if last > first:
            written(db, fence, first, last)
            first = last
        if last == first:
            median, worst = chart(db, fence, wanted)
            print(f"  chart of {wanted:,} points: {1e3 * median:,.0f} ms (median), {1e3 * worst:,.0f} ms (worst)")
    db.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--chart", default="1000000,10000000")
    options = parser.parse_args()
    charts = [int(word) for word in options.chart.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        print("SQLite")
        measure(f"sqlite:///{folder}/basin.db", options.points, charts)
    folder = tempfile.mkdtemp(prefix="basin-pg-")
    cluster = Cluster(Path(folder), server_binaries(), settings=())
    try:
        cluster.start()
        print("PostgreSQL")
        measure(cluster.url, options.points, charts)
    finally:
        cluster.crash()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
