"""How often the host waits for its device, and how far it runs ahead.

A GPU's part is played by tensors that hold nothing, and by a queue that is worked off slowly.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from core.engine import build as building
from core.engine import pacing
from core.engine.build import build_training_run
from core.engine.datasets.resident import TensorSplit
from core.engine.evaluation.evaluate import evaluate_network
from core.engine.evaluation.objective import Classification, Regression
from core.engine.events import Ended
from core.engine.loop import _train_steps
from core.engine.networks.network import flatten
from core.engine.pacing import Pacer
from core.engine.session import Session
from core.recipe.assignment import Assignment
from core.recipe.catalog import component_classes
from core.recipe.data import DataSpec
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec
from tests.train.devices import META, Queue, Reads
from tests.train.looks import Look
from tests.train.recipes import CNN, MLP, RECIPES
from tests.train.runs import Train, Watcher, digests, job

pytestmark = pytest.mark.usefixtures("one_thread")

Reading = Callable[[JobSpec], int]
READING = {
    "adafactor": "the sizes of each weight and of its update decide about the step, in Python",
    "lbfgs": "whether a step goes on depends on the loss and on the gradient",
}
"""Optimizers that cannot step without reading from the device -> why."""


class Undrained(Session):
    """The steps between two drains: nobody looks, judges or keeps."""

    def report_waiting_steps(self) -> None:
        pass

    def run_due_evaluations(self, done: int) -> None:
        pass

    def should_end(self, done: int) -> bool:
        return False

    def checkpoint_due(self, done: int) -> bool:
        return False

    def finish_run(self) -> Ended:
        return self.ended_event("succeeded", "completed")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, datasets: Callable[[str | DataSpec], Path]) -> Reading:
    """How often the steps of a job, from the second on, read from the device."""
    torchs = import_module("torch.optim.optimizer")
    fused = torchs._get_fused_kernels_supported_devices()
    monkeypatch.setattr(torchs, "_get_fused_kernels_supported_devices", lambda: [*fused, "meta"])
    monkeypatch.setattr(building, "open_device", lambda _: META)

    def count(spec: JobSpec) -> int:
        plan = resolve_plan(spec, "cpu")
        fields = {"job": "job_test", "attempt": 1, "spec": spec, "plan": plan, "scratch": tmp_path}
        with Reads() as device:
            run = build_training_run(Assignment(dataset=datasets(spec.data), **fields))
            seen = []
            stepped = type(run.stepper).step

            def step(self: Any, *arguments: Any) -> None:
                stepped(self, *arguments)
                seen.append(device.count)

            monkeypatch.setattr(type(run.stepper), "step", step)
            _train_steps(Undrained(run, Watcher(), 60.0, time.monotonic))
            monkeypatch.setattr(type(run.stepper), "step", stepped)
        assert len(seen) > 2
        return device.count - seen[0]

    return count


@pytest.mark.parametrize("model", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("name", sorted(component_classes("optimizers")))
def test_a_step_reads_nothing_from_the_device(
    reads: Callable[[JobSpec], int], name: str, model: dict[str, Any]
) -> None:
    fields: dict[str, Any] = {"lbfgs": {"batch_size": "full"}, "rprop": {"batch_size": "full"}}.get(name, {})
    epochs = 4 if fields else 1
    own = {"optimizer": "lion"} if name == "pytorch_optimizer" else {}
    spec = job(model=model, optimizer={"name": name, "lr": 0.01, **own}, epochs=epochs, **fields)
    assert (reads(spec) > 0) is (name in READING)


@pytest.mark.parametrize(("recipe", "more"), [("everything", {"sam": {"rho": 0.05}}), ("everything-nadam", {})])
def test_nor_does_what_comes_with_it(reads: Reading, recipe: str, more: dict[str, Any]) -> None:
    """Clipping, micro-batches, averages, members and windows of the log wait on the device too."""
    swa = {"start": "4st", "cycle": "2st", "swag": {"samples": 2, "max_rank": 3}}
    ema = {"start": "3st", "every": "2st", "warmup": True, "with_swa": True}
    stopping = {"monitor": "val.accuracy", "patience": 1000, "start_from": "2st"}
    members = {"method": "checkpoints", "every": "3st", "members": 2}
    early = {"swa": swa, "ema": ema, "ensemble": members, "early_stopping": stopping, "epochs": 2}
    spec = job(**{**RECIPES[recipe].model_dump(mode="json", exclude_unset=True), **early, **more})
    assert reads(spec) == 0


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_an_evaluation_reads_once(task: str) -> None:
    objective = Classification(("accuracy",)) if task == "classification" else Regression(("mae", "r2"), None)
    targets = torch.empty(50, dtype=torch.int64) if task == "classification" else torch.empty(50, 3)
    part = TensorSplit(torch.empty(50, 4, device=META), targets.to(META))
    small = flatten(nn.Sequential(nn.Linear(4, 3)).to(META))
    with Reads() as device:
        assert evaluate_network(replace(small, most_at_once=20), part, objective).keys() >= {"loss", *objective.metrics}
    assert device.count == 1


def queue(monkeypatch: pytest.MonkeyPatch, seconds: float) -> Queue:
    """A device on which each operation takes so long, and which the engine takes for a GPU where it paces itself."""
    device = Queue(seconds)
    monkeypatch.setattr(pacing, "build_pacer", lambda _: Pacer(device.record, clock=lambda: device.now))
    return device


LONG: dict[str, dict[str, Any]] = {
    "landscape": {"steps": 4, "bn": "reestimate"},
    "interpolation": {"steps": 4},
    "connect": {"epochs": 3, "points": 3},
    "gradient_noise": {"draws": 10, "small": 4, "large": 8},
    "critical_point": {"lanczos_steps": 10, "points": 3},
    "lr_range": {"steps": 30},
}


@pytest.mark.parametrize("recipe", ["everything", "cnn-adam"])
def test_a_run_is_at_most_half_a_second_ahead(run: Train, monkeypatch: pytest.MonkeyPatch, recipe: str) -> None:
    """A piece may come on top. The numbers are those of a run that nobody holds back, which is further ahead."""
    found, ahead = [], []
    for device in (Queue(1e-3), queue(monkeypatch, 1e-3)):
        with device:
            _, watcher = run(RECIPES[recipe])
        found.append((watcher.series(), digests(max(watcher.checkpoints().items())[1])))
        ahead.append(device.most_ahead)
    assert found[0] == found[1]
    assert ahead[0] > 1.2
    assert ahead[1] <= 0.5 + 0.3


@pytest.mark.parametrize("kind", LONG)
def test_so_is_an_analysis(run: Train, look: Look, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    spec = job(model=MLP, epochs=1)
    _, watcher = run(spec)
    pair = (spec, watcher.checkpoints()[8])
    pairs = [pair, pair] if kind in {"connect", "interpolation"} else [pair]
    with queue(monkeypatch, 1e-3) as device:
        look(pairs, kind=kind, **LONG[kind])
    assert device.most_ahead <= 0.5 + 0.3
