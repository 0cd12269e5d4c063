"""The delay of a job: from the answer to POST /v1/jobs to the first optimizer step, on an idle worker.

python -m bench.first_step [RUNS]

A real api, worker, SQLite file and broker, as `basin up` starts them. The moment of the first step is the time that the
engine gave the point t=0 of train.loss, on the same machine's clock.
"""

import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from core.db.migrate import upgrade_schema
from core.recipe.data.materialise import materialise_dataset, read_data
from tests.support.broker import running_broker
from tests.support.service import Service, make_home

SPEC = {
    "model": {"name": "mlp", "hidden": [128, 128]},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "batch_size": 32,
    "epochs": 5,
    "swa": True,
}


def measure(service: Service) -> tuple[float, float]:
    """Milliseconds from the answer to the claim, and to the first step."""
    job_id = service.submit(SPEC)
    answered = time.time()
    job = service.ended(job_id)
    if job["status"] != "succeeded":
        sys.exit(f"the job ended {job['status']}: {job['error']}")
    series = service.http.get(f"/v1/jobs/{job_id}/metrics", params={"series": "train.loss", "to": 0}).json()["series"]
    claimed = next(entry["at"] for entry in job["timeline"] if entry["status"] == "running")
    return 1000 * (at(claimed) - answered), 1000 * (at(series["train.loss"]["times"][0]) - answered)


def at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder, running_broker() as broker:
        url = f"sqlite:///{folder}/basin.db"
        upgrade_schema(url)
        home = make_home(
            Path(folder) / "home", lambda name: materialise_dataset(read_data(name), Path(folder) / "datasets")
        )
        service = Service(home, url, broker.url)
        service.heal()
        measure(service)  # the first request and the first hint of all open their connections
        found = [measure(service) for _ in range(runs)]
        service.stop()
    for title, values in zip(("answer to claim", "answer to first step"), zip(*found, strict=True), strict=True):
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{title:>21}: median {middle:6.1f} ms, quartiles {low:.1f} to {high:.1f} ms, worst {max(values):.1f} ms")


if __name__ == "__main__":
    main()
