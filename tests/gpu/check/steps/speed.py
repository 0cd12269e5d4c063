"""What a GPU costs and brings, as numbers; only the values of analyses can be wrong."""

import time
from functools import partial
from typing import Any

from core.recipe.spec import JobSpec
from tests.gpu.check.attempts import service
from tests.gpu.check.data import dataset
from tests.gpu.check.report import Report
from tests.gpu.check.steps.analyses import analyses
from tests.gpu.check.steps.isolation import small
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES
from tests.train.runs import Train, job, trainer

SECONDS = 60.0
ABOUT_SECONDS = 0.4  # of a run, so that a large network takes few steps


def speed(target: Target, report: Report) -> None:
    """A first step, then steps, then analyses; the CPU's are those of one core."""
    _first_steps(target, report)
    run = trainer(target.folder / "speed", partial(dataset, folder=target.folder / "datasets"))
    for name, spec in networks(target).items():
        with report.finding(f"{name}: a step") as step:
            device, cpu = (_microseconds(target, run, spec, where) for where in (target.device, "cpu"))
            step.says(ok=True, detail=f"one CPU core {cpu:.0f} µs, {cpu / device:.2f} times", value=device, unit="µs")
    analyses(target, report, run)


def networks(target: Target) -> dict[str, JobSpec]:
    """Those of the catalog, small and as large as a GPU likes them."""
    size, width = target.choose((32, 1024), (8, 16))
    pictures = {"name": "gaussian_images", "examples": 1024, "size": size, "channels": 3, "validation": 0, "test": 0}
    still = {"log_every": 10**6, "evaluate": {"every": "1run"}, "checkpoints": {"every": "1run"}}
    point = {"model": {"name": "point", "start": [1.0, 2.0]}, "data": {"name": "function", "function": "rosenbrock"}}
    cnn = {"name": "cnn", "channels": [16, 32], "hidden": [64], "batch_norm": True, "dropout": 0.1}
    return {
        "logistic": job(model={"name": "logistic"}, data=IMAGES, **still),
        "mlp 128-128": job(model={"name": "mlp"}, data=IMAGES, **still),
        "mlp 128-128, adam": job(model={"name": "mlp"}, data=IMAGES, optimizer={"name": "adam"}, **still),
        f"mlp {width}-{width}, batch 512": job(
            model={"name": "mlp", "hidden": [width, width]}, data=pictures, batch_size=512, **still
        ),
        "cnn 16-32": job(model=cnn, data=IMAGES, **still),
        f"cnn 16-32 on {size} by {size}, batch 256": job(model=cnn, data=pictures, batch_size=256, **still),
        "point": job(**point, batch_size=1, optimizer={"name": "sgd", "lr": 1e-4}, **still),
    }


def _microseconds(target: Target, run: Train, spec: JobSpec, device: str) -> float:
    """Of a step: what the steps of a longer run take more than those of a shorter one."""
    _timed(run, spec, 1, device)  # what is only slow the first time
    once = _timed(run, spec, 2, device)
    few: int = target.choose(max(2, min(200, int(ABOUT_SECONDS / once))), 2)
    short, long = _timed(run, spec, few, device), _timed(run, spec, 6 * few, device)
    return max(0.1, 1e6 * (long - short) / (5 * few))


def _timed(run: Train, spec: JobSpec, steps: int, device: str) -> float:
    began = time.perf_counter()
    ending, _ = run(spec.model_copy(update={"epochs": None, "steps": steps}), plan={"device": device})
    if ending.outcome != "succeeded":
        raise ArithmeticError(f"{ending.error}")
    return time.perf_counter() - began


def _first_steps(target: Target, report: Report) -> None:
    """Of runners, whose zygote has imported torch already."""
    with service(target) as found:
        report.says("a zygote is ready", ok=True, value=found.ready_seconds, unit="s")
        for number in ("the first", "the second"):
            with report.finding(f"{number} runner: the first step") as first:
                spec: Any = small(log_every=1)
                attempt = found.begin("first", spec)
                attempt.wait_for_kind("started", SECONDS)
                built = time.monotonic() - attempt.began
                attempt.wait_for(lambda frame: frame["type"] in {"points", "progress"}, SECONDS)
                took = time.monotonic() - attempt.began
                first.says(ok=True, detail=f"{built:.2f} s to what it is built of", value=took, unit="s")
                attempt.kill()
