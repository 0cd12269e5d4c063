"""docs/reproduce.md, followed by hand: plain PyTorch and scikit-learn compute the metrics of real jobs.

Nothing of the engine is used on the way to a number, so a rule that the page leaves out or gets wrong fails here.
"""

import base64
import hashlib
import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional

from core.engine.events import Started
from tests.train.runs import Train, job

Splits = dict[str, Tensor]


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    text = "/".join(str(part) for part in (seed, *purpose))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def shares(sizes: list[int], seats: int) -> list[int]:
    """The seats of each class: the floor of its share, and one more for the largest remainders."""
    total = sum(sizes)
    given = [size * seats // total for size in sizes]
    remainders = [size * seats % total for size in sizes]
    order = sorted(range(len(sizes)), key=lambda k: (-remainders[k], k))
    for k in order[: seats - sum(given)]:
        given[k] += 1
    return given


def split(groups: Tensor, validation: float, test: float, seed: int = 0) -> Splits:
    n = len(groups)
    members = [torch.nonzero(groups == k).flatten() for k in sorted(set(groups.tolist()))]
    of_test = shares([len(each) for each in members], int(n * test + 0.5))
    left = [len(each) - taken for each, taken in zip(members, of_test, strict=True)]
    of_validation = shares(left, int(n * validation + 0.5))
    draws, found = generator(seed, "split"), {"test": [], "validation": [], "train": []}
    for each, tests, validations in zip(members, of_test, of_validation, strict=True):
        mixed = each[torch.randperm(len(each), generator=draws)]
        found["test"].append(mixed[:tests])
        found["validation"].append(mixed[tests : tests + validations])
        found["train"].append(mixed[tests + validations :])
    return {name: torch.cat(pieces).sort().values for name, pieces in found.items()}


def standardise(values: Tensor, train: Tensor) -> Tensor:
    """By mean and population deviation of the train split, for each feature or channel."""
    axes = [0, *range(2, values.ndim)] if values.ndim > 2 else [0]
    of_train = values[train].double()
    mean, deviation = of_train.mean(axes, keepdim=True), of_train.std(axes, keepdim=True, correction=0)
    deviation[deviation == 0] = 1
    return (values - mean.float()) / deviation.float()


@dataclass
class PlainRun:
    """A training without the engine."""

    inputs: Tensor
    targets: Tensor
    parts: Splits
    network: nn.Sequential
    batch: int
    loss: Callable[[Tensor, Tensor], Tensor] = functional.cross_entropy

    def train(self, optimizer: torch.optim.Optimizer, epochs: int) -> Iterator[int]:
        """The number of complete steps, after each of them."""
        seed_global(0, "steps")
        done, train = 0, self.parts["train"]
        for epoch in range(epochs):
            order = train[torch.randperm(len(train), generator=generator(0, "order", epoch))]
            for rows in order.split(self.batch):
                self.network.train()
                optimizer.zero_grad()
                self.loss(self.network(self.inputs[rows]), self.targets[rows]).backward()
                optimizer.step()
                done += 1
                yield done

    def outputs(self, rows: Tensor) -> Tensor:
        self.network.eval()
        with torch.no_grad():
            found: Tensor = self.network(self.inputs[rows])
        return found

    def classification(self, part: str) -> dict[str, float]:
        rows = self.parts[part]
        outputs = self.outputs(rows)
        losses = functional.cross_entropy(outputs, self.targets[rows], reduction="none").double()
        right = (outputs.argmax(1) == self.targets[rows]).double()
        return {"loss": losses.mean().item(), "accuracy": right.mean().item()}


def seed_global(seed: int, *purpose: str) -> None:
    torch.default_generator.set_state(generator(seed, *purpose).get_state())


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    seed_global(0, "init")
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def digits(validation: float, test: float) -> tuple[Tensor, Tensor, Splits]:
    bunch = datasets.load_digits()
    raw, targets = torch.from_numpy(bunch.images[:, None].astype(np.float32)), torch.from_numpy(bunch.target).long()
    parts = split(targets, validation, test)
    return standardise(raw, parts["train"]), targets, parts


def last_values(run: Train, **fields: Any) -> dict[str, float]:
    """The last point of every series of a real job."""
    ended, watcher = run(job(**fields))
    assert ended.outcome == "succeeded"
    return {name: points[-1][1] for name, points in watcher.series().items()}


def reported_split(run: Train, **fields: Any) -> dict[str, list[int]]:
    """What `GET /v1/jobs/{id}/split` answers of such a job."""
    _, watcher = run(job(**fields))
    started = next(event for event in watcher.events if isinstance(event, Started))
    codes = zlib.decompress(base64.b64decode(started.split or ""))
    parts = enumerate(("train", "validation", "test"))
    return {name: [row for row, code in enumerate(codes) if code == number] for number, name in parts}


def assert_same(found: dict[str, float], seen: dict[str, float], prefix: str) -> None:
    assert {f"{prefix}.{name}": pytest.approx(value, rel=1e-5) for name, value in found.items()} == {
        f"{prefix}.{name}": seen[f"{prefix}.{name}"] for name in found
    }


@pytest.fixture(autouse=True)
def _same_randomness() -> Iterator[None]:
    before = torch.default_generator.get_state()
    yield
    torch.default_generator.set_state(before)


def test_digits(run: Train) -> None:
    """Split, standardisation, initial weights, order of the epochs and evaluation."""
    inputs, targets, parts = digits(0.1, 0.5)
    plain = PlainRun(inputs, targets, parts, mlp(64, 16, 10), 24)
    steps = list(plain.train(torch.optim.SGD(plain.network.parameters(), lr=0.1, momentum=0.9), 3))
    assert len(steps) == 3 * math.ceil(len(parts["train"]) / 24)
    data = {"name": "digits", "validation": 0.1, "test": 0.5}
    assert reported_split(run, data=data) == {name: rows.tolist() for name, rows in parts.items()}
    seen = last_values(run, data=data)
    assert_same(plain.classification("validation"), seen, "val")
    assert_same(plain.classification("test"), seen, "test")


def test_label_noise_and_dropout(run: Train) -> None:
    """Wrong classes stay in the train split; dropout draws from the generator that is seeded once."""
    inputs, targets, parts = digits(0.1, 0.7)
    count, noise = int(len(parts["train"]) * 0.2 + 0.5), generator(0, "label noise")
    places = parts["train"][torch.randperm(len(parts["train"]), generator=noise)[:count]]
    targets = targets.clone()
    targets[places] = (targets[places] + torch.randint(1, 10, (count,), generator=noise)) % 10
    seed_global(0, "init")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10))
    plain = PlainRun(inputs, targets, parts, network, 24)
    list(plain.train(torch.optim.Adam(network.parameters(), lr=0.01), 2))
    seen = last_values(
        run,
        data={"name": "digits", "validation": 0.1, "test": 0.7, "label_noise": 0.2},
        model={"name": "mlp", "hidden": [16], "dropout": 0.5},
        optimizer={"name": "adam", "lr": 0.01},
        epochs=2,
    )
    assert_same(plain.classification("validation"), seen, "val")


def test_batch_norm_of_averaged_weights(run: Train) -> None:
    """SWA from epoch 1 on; its statistics are means over the batches of the train split, in index order."""
    inputs, targets, parts = digits(0.1, 0.7)
    seed_global(0, "init")
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 10)
    )
    plain = PlainRun(inputs, targets, parts, network, 32)
    per_epoch = math.ceil(len(parts["train"]) / 32)
    steps = plain.train(torch.optim.SGD(network.parameters(), lr=0.05), 3)
    sums = [[each.detach().clone() for each in network.parameters()] for done in steps if done % per_epoch == 0]
    for parameter, *collected in zip(network.parameters(), *sums, strict=True):
        parameter.data = torch.stack(collected).double().mean(0).float()
    mean, variance, norm = torch.zeros(4), torch.zeros(4), network[1]
    for rows in parts["train"].split(32):  # in index order
        outputs = network[0](inputs[rows]).detach()
        mean += outputs.mean((0, 2, 3)) * len(rows) / len(parts["train"])
        variance += outputs.var((0, 2, 3), correction=1) * len(rows) / len(parts["train"])
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    seen = last_values(
        run,
        data={"name": "digits", "validation": 0.1, "test": 0.7},
        model={"name": "cnn", "channels": [4], "hidden": []},
        optimizer={"name": "sgd", "lr": 0.05},
        swa={"start": "1ep", "every": "1ep", "lr": 0.05, "anneal": "0st"},
        batch_size=32,
    )
    assert_same(plain.classification("validation"), seen, "swa.val")
    assert_same(plain.classification("test"), seen, "swa.test")


def test_a_regression_with_accumulation(run: Train) -> None:
    """Diabetes is unscaled; a step of accumulated micro-batches is a step of the whole batch."""
    bunch = datasets.load_diabetes(scaled=False)
    raw, numbers = (torch.from_numpy(each.astype(np.float32)) for each in (bunch.data, bunch.target[:, None]))
    parts = split(torch.zeros(442, dtype=torch.int64), 0.1, 0.2)
    targets = standardise(numbers, parts["train"])
    plain = PlainRun(standardise(raw, parts["train"]), targets, parts, mlp(10, 16, 1), 48, torch.nn.functional.mse_loss)
    list(plain.train(torch.optim.SGD(plain.network.parameters(), lr=0.05), 4))
    seen = last_values(
        run,
        data={"name": "diabetes"},
        optimizer={"name": "sgd", "lr": 0.05},
        batch_size=12,
        accumulate=4,
        epochs=4,
    )
    rows = parts["test"]
    deviation = numbers[parts["train"]].double().std(correction=0)
    errors = (plain.outputs(rows) - targets[rows]).double()
    assert_same({"loss": errors.square().mean().item(), "mae": (errors * deviation).abs().mean().item()}, seen, "test")


def test_generated_data(run: Train) -> None:
    """Blobs from PCG64's raw bits: labels, centres and noise in the order that the page gives."""
    bits, n = np.random.PCG64(7), 300

    def uniform(*shape: int) -> Any:
        return ((bits.random_raw(math.prod(shape)) >> 11) * 2.0**-53).reshape(shape)

    labels = (np.arange(n) % 3)[np.argsort(uniform(n), kind="stable")]
    centres = 10 * (2 * uniform(3, 2) - 1)
    radius = np.sqrt(-2 * np.log(1 - uniform(n, 2)))
    drawn = centres[labels] + 4.0 * radius * np.cos(2 * np.pi * uniform(n, 2))
    raw = torch.from_numpy((np.round(drawn * 2**20) / 2**20).astype(np.float32))
    targets = torch.from_numpy(labels)
    parts = split(targets, 0.1, 0.2)
    plain = PlainRun(standardise(raw, parts["train"]), targets, parts, mlp(2, 8, 3), 16)
    list(plain.train(torch.optim.SGD(plain.network.parameters(), lr=0.1), 2))
    seen = last_values(
        run,
        data={"name": "blobs", "examples": n, "seed": 7, "noise": 4.0},
        model={"name": "mlp", "hidden": [8]},
        optimizer={"name": "sgd", "lr": 0.1},
        batch_size=16,
        epochs=2,
    )
    assert_same(plain.classification("test"), seen, "test")
