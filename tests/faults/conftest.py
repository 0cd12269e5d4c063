"""The job that every fault test runs, and what must hold afterwards, whatever happened to it."""

import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from core.jobs.ledger.check import Ledger
from core.jobs.metrics.chunks import read_series
from core.recipe.parse import parse_job
from tests.support.service import Service
from worker import runner

# With what a resume can get wrong: momentum, dropout, means of weights, members of an ensemble, open metric chunks.
SPEC: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [384, 384], "dropout": 0.1},
    "data": {"name": "digits"},
    "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "nesterov": True},
    "schedule": {"name": "cosine", "warmup": "1ep"},
    "swa": {"start": "0.5run", "every": "5ep"},
    "ema": {"every": "5st", "warmup": True, "with_swa": True},
    "ensemble": {"method": "checkpoints", "every": "1ep", "members": 2},
    "evaluate": {"every": "5ep"},
    "checkpoints": {"every": "300st"},
    "batch_size": 32,
    "seed": 3,
}
SHORT = SPEC | {"epochs": 2}
STEPS_PER_EPOCH = 40  # ceil(1258 / 32)
SECONDS = 2.5  # a fault has to find the job at work, on a fast machine too
MEASURED = {"throughput"}  # a measurement of time, not a result
OF_STEPS = ("train.loss", "lr", "grad_norm")  # series whose points stand at the step that they are of


@dataclass
class Truth:
    """A job that is long enough here to be disturbed, and what it gives without any disturbance."""

    spec: dict[str, Any]
    series: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        return int(self.spec["epochs"]) * STEPS_PER_EPOCH

    def emit(self, event: runner.Event) -> None:
        kind, fields = runner.event_frame(event)
        if kind == "points":
            for name, (steps, values, _) in fields["series"].items():
                self.series.setdefault(name, []).extend(zip(steps, values, strict=True))
        if kind == "checkpoint":
            self.digests[fields["kind"]] = fields["files"]["weights"]["sha256"]
        if kind == "rollback":
            for name, points in self.series.items():
                last = fields["step"] - (name in OF_STEPS or fields["step"] == 0)
                self.series[name] = [point for point in points if point[0] <= last]

    def stop_request(self) -> None:
        """Nobody stops it."""


def undisturbed(spec: dict[str, Any], datasets: Path, scratch: Path) -> Truth:
    """The job with no service around it."""
    found = Truth(spec)
    parsed = parse_job(json.dumps(spec).encode())
    ended = runner.train_local(parsed, found, datasets=datasets, scratch=scratch)
    assert (ended.outcome, ended.progress["step"]) == ("succeeded", found.steps)
    found.results = ended.results
    return found


@pytest.fixture(scope="session")
def truth(datasets: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """The undisturbed run, with no service around it."""

    def run(epochs: int) -> Truth:
        scratch = tmp_path_factory.mktemp("undisturbed")
        return undisturbed(SPEC | {"epochs": epochs}, datasets("digits").parent, scratch)

    run(2)  # whatever torch does at its first steps
    begun = time.process_time()  # whatever else this machine does meanwhile
    run(10)
    epochs = 5 * math.ceil(2 * SECONDS / (time.process_time() - begun))
    return run(min(max(epochs, 40), 900))


@pytest.fixture(scope="session")
def rolling(truth: Truth, datasets: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """A job as long, whose rate is ruinous from its middle on until it has been rolled back."""
    ruinous = {"name": "multistep", "milestones": ["0.5run"], "gamma": 2.0**60}
    fields = {"schedule": ruinous, "rollback": {"factor": 2.0**-60}, "swa": None, "ema": None, "ensemble": None}
    spec = SPEC | fields | {"epochs": truth.spec["epochs"]}
    return undisturbed(spec, datasets("digits").parent, tmp_path_factory.mktemp("rolling"))


@pytest.fixture
def at_a_random_moment(truth: Truth) -> Callable[[Service, str], None]:
    """Wait until somewhere in the middle of the job, so that there is something to lose and something to do."""

    def wait(service: Service, job_id: str) -> None:
        service.when_at(job_id, random.randrange(truth.steps * 4 // 10))

    return wait


def assert_same(service: Service, job_id: str, truth: Truth) -> None:
    """The oracle: the job succeeded with the very bits of the undisturbed run, and all that is written down fits."""
    job = service.ended(job_id)
    assert (job["status"], job["stop_reason"], job["error"]) == ("succeeded", "completed", None), job
    assert job["results"] == truth.results
    assert job["progress"]["step"] == truth.steps
    newest = {row["kind"]: row["sha256"] for row in service.checkpoints(job_id)}  # oldest first
    assert newest == truth.digests
    with service.database() as db:
        assert list(Ledger(db, None).iter_findings()) == []
        found = read_series(db, job_id)
    assert found.keys() == truth.series.keys()
    for name, points in found.items():
        steps = list(points.steps)
        assert steps == sorted(set(steps)), f"{name} has a step twice or out of order"
        if name not in MEASURED:
            assert list(zip(steps, points.values, strict=True)) == truth.series[name], name


@pytest.fixture
def same_as_undisturbed(truth: Truth) -> Callable[..., None]:
    """The oracle, by default for the job of `truth`."""

    def check(service: Service, job_id: str, truth: Truth = truth) -> None:
        assert_same(service, job_id, truth)

    return check
