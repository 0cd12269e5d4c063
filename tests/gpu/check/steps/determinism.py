"""The same job, many times: the same bits."""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

from core.recipe.catalog import component_classes
from core.recipe.spec import JobSpec
from tests.gpu.check.data import dataset
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES, stepped
from tests.train.runs import Train, digests, job, trainer

RUNS = 50
DRY_STRIDE = 4  # tests of the engine do the rest on a CPU


def determinism(target: Target, report: Report) -> None:
    """Each layer, loss and optimizer; then what differs where nobody asks for determinism."""
    run = trainer(target.folder / "determinism", partial(dataset, folder=target.folder / "datasets"))
    stride = target.choose(1, DRY_STRIDE)
    strict, free = list(subjects())[::stride], list(layers())[::stride]
    left = len(strict) + len(free)
    for name, spec in strict:
        with report.finding(f"{name}: the same bits") as same:
            seen = repeated(target, report.left() / left, run, spec)
            same.says(ok=len(seen) == 1, detail=str(list(seen)[:2]), value=seen.total(), unit="runs")
        left -= 1
    for name, spec in free:
        with report.finding(f"{name}: not asked to be deterministic") as differs:
            seen = repeated(target, report.left() / left, run, spec.model_copy(update={"deterministic": False}))
            left -= 1
            differs.says(ok=True, detail=f"in {seen.total()} runs", value=len(seen), unit="different results")


def repeated(target: Target, seconds: float, run: Train, spec: JobSpec) -> Counter[str]:
    """How often each result came, its digest or its error, in 50 runs or so many seconds; three runs in any case."""
    seen: Counter[str] = Counter()
    until = time.monotonic() + seconds
    for _ in range(target.choose(RUNS, 2)):
        ending, watcher = run(spec, plan={"device": target.device})
        if ending.outcome != "succeeded":
            return Counter({f"{ending.error} (told {number} times)": 1 for number in range(1, 3)})
        seen[str(digests(watcher.checkpoints()[max(watcher.checkpoints())]))] += 1
        if time.monotonic() > until and seen.total() >= 3:
            break
    return seen


def subjects() -> Iterator[tuple[str, JobSpec]]:
    """By name."""
    yield from layers()
    yield from losses()
    for name in sorted(component_classes("optimizers")):
        yield f"optimizer {name}", stepped(name, "cnn")


def layers() -> Iterator[tuple[str, JobSpec]]:
    """Every model of the catalog, with all that may be in it."""
    cnn = {"name": "cnn", "channels": [8, 16], "hidden": [32], "batch_norm": True, "dropout": 0.3}
    mlp = {"name": "mlp", "hidden": [64, 64], "batch_norm": True, "dropout": 0.3}
    point = {"model": {"name": "point", "start": [1.5, -0.5]}, "data": {"name": "function", "function": "rosenbrock"}}
    yield "model logistic", few(model={"name": "logistic"})
    yield "model mlp", few(model=mlp)
    for activation in ("relu", "tanh", "sigmoid", "gelu"):
        yield f"model mlp, {activation}", few(model={"name": "mlp", "hidden": [64, 64], "activation": activation})
    yield "model cnn", few(model=cnn)
    yield "model cnn, kernel 5", few(model=cnn | {"kernel_size": 5, "batch_norm": False})
    yield "model point", few(**point, optimizer={"name": "adam", "lr": 0.01}, batch_size=1, swa=None)


def losses() -> Iterator[tuple[str, JobSpec]]:
    """Every loss, and what can be done to it."""
    yield "loss cross_entropy, smoothed", few(label_smoothing=0.1, data=IMAGES | {"label_noise": 0.2})
    yield "loss mse", few(model={"name": "mlp", "hidden": [32]}, data={"name": "diabetes"})
    yield "accumulated, clipped", few(accumulate=2, clip_grad={"norm": 0.5}, sampling="with_replacement")


def few(**fields: Any) -> JobSpec:
    """Eight steps, with an average, so that many of them fit."""
    base = {"data": IMAGES, "epochs": None, "steps": 8, "swa": {"start": "4st", "every": "1st"}}
    return job(**{**base, **fields})
