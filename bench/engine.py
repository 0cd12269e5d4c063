"""The engine against a plain DataLoader loop and against Lightning as its users write it.

    python -m bench.engine [--epochs 20] [--rounds 5]

Digits, mlp 128-128, batch 32, cosine rate, validation after every epoch, one thread; whole fits in a warm process; the
contenders alternate. Lightning takes part where it is installed (deploy/locks/bench.lock). Compare the ratios: the
examples per second depend on the machine.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import math
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from core.engine.datasets.resident import ResidentDataset, load_resident
from core.engine.events import Event, StopRequest
from core.engine.loop import train
from core.recipe.assignment import Assignment
from core.recipe.data.materialise import materialise_dataset, read_data
from core.recipe.plan import resolve_plan
from core.recipe.spec import JobSpec

BATCH = 32
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    "adam": {"name": "adam", "lr": 1e-3},
}
Fit = Callable[[], float]  # trains once and returns the final validation loss


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def make_optimizer(name: str, module: nn.Module) -> torch.optim.Optimizer:
    options = {key: value for key, value in OPTIMIZERS[name].items() if key != "name"}
    kind: type[torch.optim.Optimizer] = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[name]
    return kind(module.parameters(), **options)


def loaders(data: ResidentDataset) -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    train_set = TensorDataset(data.train.inputs, data.train.targets)
    held_out = TensorDataset(data.validation.inputs, data.validation.targets)
    return DataLoader(train_set, BATCH, shuffle=True), DataLoader(held_out, BATCH)


class Silent:
    """An observer that keeps the last validation loss."""

    loss = math.nan

    def emit(self, event: Event) -> None:
        series = getattr(event, "series", {})
        if "val.loss" in series:
            self.loss = series["val.loss"][1][-1]

    def stop_request(self) -> StopRequest | None:
        return None


def engine(optimizer: str, epochs: int, dataset: Path, **fields: Any) -> Fit:
    job = {
        "model": {"name": "mlp"},
        "data": {"name": "digits"},
        "optimizer": OPTIMIZERS[optimizer],
        "schedule": {"name": "cosine"},
        "batch_size": BATCH,
        "epochs": epochs,
        **fields,
    }
    spec = JobSpec.model_validate_json(json.dumps(job)).resolved()

    def fit() -> float:
        observer = Silent()
        with tempfile.TemporaryDirectory() as scratch:
            plan = resolve_plan(spec, "cpu")
            train(
                Assignment(job="bench", attempt=1, spec=spec, plan=plan, dataset=dataset, scratch=Path(scratch)),
                observer,
            )
        return observer.loss

    return fit


def plain_loop(optimizer: str, epochs: int, data: ResidentDataset) -> Fit:
    def fit() -> float:
        module, criterion = network(), nn.CrossEntropyLoss()
        stepper = make_optimizer(optimizer, module)
        batches, held_out = loaders(data)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, epochs * len(batches))
        held_out_loss = math.nan
        for _ in range(epochs):
            module.train()
            for inputs, targets in batches:
                stepper.zero_grad()
                loss = criterion(module(inputs), targets)
                loss.backward()
                stepper.step()
                schedule.step()
                loss.item()
            module.eval()
            with torch.no_grad():
                losses = [criterion(module(inputs), targets).item() * len(targets) for inputs, targets in held_out]
            held_out_loss = sum(losses) / len(data.validation)
        return held_out_loss

    return fit


def lightning_fit(optimizer: str, epochs: int, data: ResidentDataset) -> Fit:
    import lightning

    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Digits(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module, self.criterion = network(), nn.CrossEntropyLoss()

        def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
            loss: Tensor = self.criterion(self.module(batch[0]), batch[1])
            self.log("train_loss", loss, prog_bar=True)
            return loss

        def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
            self.log("val_loss", self.criterion(self.module(batch[0]), batch[1]), prog_bar=True)

        def configure_optimizers(self) -> dict[str, Any]:
            stepper = make_optimizer(optimizer, self)
            steps = epochs * math.ceil(len(data.train) / BATCH)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, steps)
            return {"optimizer": stepper, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def fit() -> float:
        with tempfile.TemporaryDirectory() as folder:
            trainer = lightning.Trainer(max_epochs=epochs, accelerator="cpu", default_root_dir=folder)
            trainer.fit(Digits(), *loaders(data))
            return float(trainer.callback_metrics["val_loss"])

    return fit


@contextlib.contextmanager
def muted() -> Any:
    """Progress bars are drawn, since they are part of the cost, but their output is discarded."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def measure(fits: dict[str, Fit], rounds: int) -> dict[str, tuple[float, float]]:
    """Name -> (median seconds, median final validation loss); after one uncounted round, the contenders alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in fits}
    losses: dict[str, list[float]] = {name: [] for name in fits}
    for turn in range(rounds + 1):
        for name, fit in fits.items():
            with muted():
                start = time.perf_counter()
                loss = fit()
                taken = time.perf_counter() - start
            if turn:
                seconds[name].append(taken)
                losses[name].append(loss)
    return {name: (statistics.median(seconds[name]), statistics.median(losses[name])) for name in fits}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = materialise_dataset(read_data("digits"), Path(folder))
        data = load_resident(
            JobSpec.model_validate_json(
                '{"model": {"name": "mlp"}, "data": {"name": "digits"}, "optimizer": {"name": "sgd"}, "epochs": 1}'
            ).data,
            dataset,
            torch.device("cpu"),
        )
        print(f"{'optimizer':10}{'contender':16}{'examples/s':>12}{'engine is':>11}{'val.loss':>10}")
        for optimizer in OPTIMIZERS:
            fits = {
                "engine": engine(optimizer, options.epochs, dataset),
                "DataLoader loop": plain_loop(optimizer, options.epochs, data),
            }
            if importlib.util.find_spec("lightning"):
                fits["Lightning"] = lightning_fit(optimizer, options.epochs, data)
            measured = measure(fits, options.rounds)
            for name, (seconds, loss) in measured.items():
                pace = options.epochs * len(data.train) / seconds
                print(f"{optimizer:10}{name:16}{pace:12,.0f}{seconds / measured['engine'][0]:10.2f}x{loss:10.3f}")
    if not importlib.util.find_spec("lightning"):
        print("Lightning is not installed and was left out.", file=sys.stderr)


if __name__ == "__main__":
    main()
