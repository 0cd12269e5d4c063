"""How long a job goes on that somebody has cancelled or paused."""

import time

from core.engine.pacing import AHEAD_SECONDS
from core.recipe.spec import JobSpec
from tests.gpu.check.attempts import Service, service
from tests.gpu.check.report import Report
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES
from tests.train.runs import job

SECONDS = 60.0
QUEUE_SECONDS = 1.0  # in which a host may run ahead
MOST = 4 * AHEAD_SECONDS  # seconds: the queue, a step, a small checkpoint
WRITTEN = 100e6  # bytes of a checkpoint in a second, at least


def latency(target: Target, report: Report) -> None:
    """Small steps of which thousands can be queued, and large ones; by SIGTERM and by an order."""
    with service(target) as found:
        for name, spec in networks(target).items():
            for way in ("cancel", "stop"):
                with report.finding(f"{name}: {way}") as ended:
                    seconds, outcome = _ended(found, spec, way)
                    wanted = {"cancel": "cancelled", "stop": "stopped"}[way]
                    most = MOST + (12 * spec.model.parameter_count(spec.data.facts()) / WRITTEN if way == "stop" else 0)
                    in_time = target.dry or max(seconds) < most  # no CPU of a busy machine is held to it
                    right = outcome == [wanted] * len(outcome)
                    ended.says(right and in_time, f"{outcome}, {most:.1f} s allowed", max(seconds), "s at most")


def networks(target: Target) -> dict[str, JobSpec]:
    """Endless jobs, as far as this is concerned; few events of their own."""
    endless = {"epochs": None, "steps": 10**8, "log_every": 1000, "evaluate": {"every": "1run"}}
    many = {"checkpoints": {"every": "1run"}}
    width, examples = target.choose((4096, 16384), (64, 512))
    large = {
        "model": {"name": "mlp", "hidden": [width] * 3},
        "data": {"name": "blobs", "features": 256, "examples": examples},
        "batch_size": examples // 4,
    }
    normed = {"name": "cnn", "channels": [8, 8], "hidden": [16], "batch_norm": True, "dropout": 0.1}
    return {
        "a small perceptron": job(data=IMAGES, **endless, **many),
        "a small network with batch norm": job(data=IMAGES, model=normed, **endless, **many),
        "a large perceptron": job(**large, **endless, **many),
    }


def _ended(found: Service, spec: JobSpec, way: str) -> tuple[list[float], list[str]]:
    """Seconds from the wish to the last frame, and outcomes."""
    seconds, outcomes = [], []
    for _ in range(found.target.choose(2, 1)):
        attempt = found.begin("endless", spec)
        attempt.wait_for_kind("started", SECONDS)
        time.sleep(found.target.choose(QUEUE_SECONDS, 0.1))  # the host runs ahead as far as it is let
        began = time.monotonic()
        if way == "cancel":
            attempt.process.terminate()
        else:
            attempt.stop()
        outcomes.append(attempt.ended(SECONDS)["outcome"])
        seconds.append(time.monotonic() - began)
    return seconds, outcomes
