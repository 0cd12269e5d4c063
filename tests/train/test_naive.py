"""The whole engine in double precision beside a trainer that shares nothing with it but data and starting weights."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from core.engine import build as engine
from core.engine.datasets.resident import ResidentDataset, TensorSplit, load_resident
from core.engine.networks.network import Network, build_network, flatten
from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec
from tests.train import naive, rules
from tests.train.naive import ByWeight, Updater
from tests.train.runs import Train, job

CPU = torch.device("cpu")
CLOUDS = {"name": "blobs", "examples": 50, "noise": 4.0, "validation": 0.1, "test": 0.1}  # 40 train
HIDDEN = {"dense1.weight"}


def adamw() -> Updater:
    return ByWeight(lambda: rules.adam(0.9, 0.999, 1e-8, 0.0, 1e-2))


CASES: dict[str, tuple[dict[str, Any], Callable[[], Updater], float]] = {
    "sgd": (
        {"lr": 0.3, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
        lambda: ByWeight(lambda: rules.sgd(0.9, 0.0, 0.01, nesterov=True)),
        1e-10,
    ),
    "adam": ({"lr": 0.03}, lambda: ByWeight(lambda: rules.adam(0.9, 0.999, 1e-8, 0.0, 0.0)), 1e-8),
    "adamw": ({"lr": 0.03}, adamw, 1e-8),
    "nadam": ({"lr": 0.03}, lambda: ByWeight(lambda: rules.nadam(0.9, 0.999, 1e-8, 4e-3)), 1e-8),
    "radam": ({"lr": 0.03}, lambda: ByWeight(lambda: rules.radam(0.9, 0.999, 1e-8)), 1e-8),
    "adamax": ({"lr": 0.03}, lambda: ByWeight(lambda: rules.adamax(0.9, 0.999, 1e-8)), 1e-8),
    "rmsprop": ({"lr": 0.01}, lambda: ByWeight(lambda: rules.rmsprop(0.99, 1e-8)), 1e-8),
    "adagrad": ({"lr": 0.1}, lambda: ByWeight(lambda: rules.adagrad(0.0, 1e-10)), 1e-8),
    "adadelta": ({"lr": 1.0}, lambda: ByWeight(lambda: rules.adadelta(0.9, 1e-6)), 1e-8),
    "adafactor": (
        {"lr": 0.05, "weight_decay": 0.1},
        lambda: naive.Adafactor(-0.8, (2.0**-52, 1e-3), 1.0, 0.1),
        1e-8,
    ),
    "asgd": (
        {"lr": 0.3, "lambd": 0.05, "t0": 4.0},
        lambda: ByWeight(lambda: rules.asgd(0.05, 0.75, 4.0)),
        1e-6,  # torch keeps η and the weight of the mean in single precision
    ),
    "rprop": ({"lr": 0.05}, lambda: ByWeight(lambda: rules.rprop(0.5, 1.2, 1e-6, 50.0)), 1e-10),
    "lbfgs": (
        {"lr": 0.3, "max_iter": 3, "max_eval": 9, "history_size": 4, "tolerance_grad": 0.0, "tolerance_change": 0.0},
        lambda: naive.LBFGS(3, 4),
        1e-7,
    ),
    "muon": (
        {"lr": 0.02, "adamw": {"lr": 0.03}},
        lambda: naive.Muon(HIDDEN, {"momentum": 0.95, "weight_decay": 0.1}, adamw(), 0.03 / 0.02),
        2e-2,  # Newton-Schulz runs in bfloat16, whose numbers have 8 bits
    ),
    "schedule_free_sgd": (
        {"lr": 1.0, "warmup_steps": 5, "weight_decay": 0.01},
        lambda: ByWeight(lambda: rules.schedule_free(0.9, 0.0, 2.0, 0.01)),
        1e-9,
    ),
    "schedule_free_adamw": (
        {"lr": 0.05, "warmup_steps": 5, "r": 1.0, "weight_decay": 0.01},
        lambda: ByWeight(lambda: rules.schedule_free(0.9, 1.0, 2.0, 0.01, 0.999, 1e-8)),
        1e-7,
    ),
    "pytorch_optimizer": (
        {"optimizer": "lion", "lr": 0.01, "options": {"weight_decay": 0.1}},
        lambda: ByWeight(lambda: rules.lion(0.9, 0.99, 0.1)),
        1e-10,
    ),
}


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine's own parts, with double precision where it has single."""

    def data(*arguments: Any) -> ResidentDataset:
        found = load_resident(*arguments[:3])
        parts = (found.train, found.validation, found.test)
        doubled = (TensorSplit(each.inputs.double(), each.targets) for each in parts)
        return ResidentDataset(*doubled, None, found.fitted, found.rows)

    def network(*arguments: Any, **options: Any) -> Network:
        return replace(flatten(build_network(*arguments, **options).module.double()), **options)

    monkeypatch.setattr(engine, "load_dataset", data)
    monkeypatch.setattr(engine, "build_network", network)


def rate(spec: JobSpec) -> Callable[[int], float]:
    """The rate of step t: a warm-up of four steps, then half a cosine; or the optimizer's own warm-up."""
    lr, total = spec.optimizer.lr, spec.shape().run.total_steps
    own = getattr(spec.optimizer, "warmup_steps", 0)
    if spec.schedule.name == "constant":
        return lambda t: lr * min(1.0, (t + 1) / own) if own else lr
    return lambda t: lr * (t + 1) / 4 if t < 4 else lr * (1 + math.cos(math.pi * (t - 4) / (total - 4))) / 2


def compare(run: Train, dataset: Path, spec: JobSpec, updater: Updater, tolerance: float) -> None:
    _, watcher = run(spec)
    part = load_resident(spec.data, dataset, CPU).train
    module = build_network(spec.model, spec.data.facts(), spec.seed, CPU).module
    start = {name: each.detach().double().numpy().copy() for name, each in module.named_parameters()}
    data = part.inputs.double().numpy(), part.targets.numpy()
    weights, losses = naive.train(spec, data, start, updater, rate(spec))
    seen = [loss for _, loss in watcher.series()["train.loss"]]
    assert len(losses) == spec.shape().run.total_steps
    assert seen == pytest.approx(losses, rel=tolerance, abs=tolerance)
    found = load_file(f"{watcher.checkpoints()[len(losses)].folder}/weights.safetensors")
    for name, expected in weights.items():
        torch.testing.assert_close(found[name], torch.from_numpy(expected), rtol=tolerance, atol=tolerance, msg=name)
    moved = max(float(abs(each - start[name]).max()) for name, each in weights.items())
    assert moved > 10 * tolerance


def clouds(name: str, **fields: Any) -> JobSpec:
    kind: Any = component_classes("optimizers")[name]
    moving = {} if kind.constant_lr_reason else {"schedule": {"name": "cosine", "warmup": "4st"}}
    full = {"batch_size": "full", "epochs": 12} if kind.full_batch else {"batch_size": 12}
    base = {"model": {"name": "mlp", "hidden": [5, 4], "activation": "tanh"}, "data": CLOUDS, "epochs": 4}
    return job(**base | moving | full | {"optimizer": {"name": name, **CASES[name][0]}} | fields)


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize("name", component_classes("optimizers"))
def test_every_optimizer_trains_as_its_paper_says(run: Train, datasets: Any, name: str) -> None:
    """A new optimizer has no case here, and fails until somebody has written its rule down a second time."""
    spec = clouds(name)
    compare(run, datasets(spec.data), spec, CASES[name][1](), CASES[name][2])


@pytest.mark.usefixtures("doubles")
@pytest.mark.parametrize(
    "fields",
    [
        {"batch_size": 1, "epochs": 1},
        {"batch_size": "full", "epochs": 9},
        {"batch_size": 7, "accumulate": 4},
        {"batch_size": 12, "sampling": "with_replacement"},
        {"sam": {"rho": 0.2}},
        {"sam": {"rho": 0.2, "interval": 3}, "batch_size": 7, "accumulate": 2},
    ],
    ids=str,
)
def test_every_way_to_cut_an_epoch_is_exact(run: Train, datasets: Any, fields: dict[str, Any]) -> None:
    """One example, some, all; drawn or dealt; the last step of an epoch, 40 by 28, weighted by what it has."""
    spec = clouds("sgd", **fields)
    compare(run, datasets(spec.data), spec, CASES["sgd"][1](), 1e-10)


def test_the_comparison_can_fail(run: Train, datasets: Any) -> None:
    """The engine in its own single precision is a thousand tolerances away, and another rule even further."""
    spec = clouds("sgd")
    for updater, tolerance in ((CASES["sgd"][1](), 1e-10), (ByWeight(lambda: rules.sgd(0.8)), 1e-3)):
        with pytest.raises(AssertionError):
            compare(run, datasets(spec.data), spec, updater, tolerance)
