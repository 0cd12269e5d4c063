"""POST /v1/jobs under load: answers, their latency, and the highest rate that one api process sustains.

python -m bench.posts [--rates 25,50,100,200,500] [--seconds 8]

A real api, SQLite, no worker, and a client process on the same cores. Jobs are posted by the clock, whether the earlier
ones were answered or not: latency counts from the moment when a job was due, so that a queue in front of the service is
included.
"""

import argparse
import asyncio
import math
import secrets
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from core.db.migrate import upgrade_schema
from tests.support.service import Service

JOB: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.01},
    "epochs": 30,
}
CONNECTIONS = 32


async def posted(http: httpx2.AsyncClient, due: float, found: list[float], refused: list[int]) -> None:
    """One job, due at `due` on the loop's clock."""
    await asyncio.sleep(max(0.0, due - time.perf_counter()))
    answer = await http.post("/v1/jobs", json=JOB, headers={"Idempotency-Key": secrets.token_hex(8)})
    found.append(time.perf_counter() - due)
    if answer.status_code != 201:
        refused.append(answer.status_code)


async def rated(url: str, rate: int, seconds: float) -> tuple[list[float], list[int]]:
    """Latencies at this rate, and how many answers were not 201."""
    found: list[float] = []
    refused: list[int] = []
    limits = httpx2.Limits(max_connections=CONNECTIONS)
    async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=httpx2.Timeout(60.0, pool=None)) as http:
        await posted(http, time.perf_counter(), [], [])
        began = time.perf_counter() + 0.1
        jobs = [posted(http, began + number / rate, found, refused) for number in range(int(rate * seconds))]
        await asyncio.gather(*jobs)
        took = time.perf_counter() - began
    print(f"  {rate}/s asked, {len(found) / took:,.0f}/s answered: ", end="")
    return found, refused


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)) - 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rates", default="25,50,100,200,500")
    parser.add_argument("--seconds", type=float, default=8.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        url = f"sqlite:///{home / 'basin.db'}"
        upgrade_schema(url)
        service = Service(home, url, None)
        service.start_api()
        try:
            for rate in (int(word) for word in options.rates.split(",")):
                found, refused = asyncio.run(rated(str(service.http.base_url), rate, options.seconds))
                median, late, worst = (1e3 * percentile(found, share) for share in (0.5, 0.99, 1.0))
                print(f"{median:,.1f} ms (median), {late:,.0f} ms (p99), {worst:,.0f} ms (worst); refused: {refused}")
        finally:
            service.stop()


if __name__ == "__main__":
    main()
