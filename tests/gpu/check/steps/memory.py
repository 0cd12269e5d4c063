"""What a job is told when a device's memory runs out, where, and through whom."""

from typing import Any

from core.recipe.spec import JobSpec
from tests.gpu.check.attempts import Frame, Service, service
from tests.gpu.check.hog import hogged
from tests.gpu.check.played import MIB
from tests.gpu.check.report import Finding, Report
from tests.gpu.check.steps.isolation import small
from tests.gpu.check.target import Target
from tests.train.runs import job

SECONDS = 100.0
CODE = "out_of_memory"


def memory(target: Target, report: Report) -> None:
    """Through the job itself, then through somebody else; and always, that a runner works afterwards."""
    with service(target) as found:
        with report.finding("too large in a forward pass") as forward:
            _, ended = found.run("forward", wide(target), SECONDS, fault="oom-forward")
            told(forward, ended, "forward")
        for name, (spec, allowed) in crowded(target).items():
            with report.finding(f"{name} too large, of {allowed} MiB") as build:
                _, ended = found.run("build", spec, SECONDS, fault=f"oom-build-{allowed}")
                told(build, ended, "build")
        works(found, report, "behind a lack of memory")
        with report.finding("the cost of an idle context") as context:
            cost = idle(found)
            context.says(cost > 0, "what a runner with a tiny job holds, at most", cost / MIB, "MiB")
        scarce(found, report, cost)
        works(found, report, "behind a hog")


def wide(target: Target) -> JobSpec:
    """Activations of 2 TiB from 67 million weights: 4096 pictures, 32768 channels of 64 by 64."""
    size, channels, examples = target.choose((64, 32768, 4096), (8, 4, 256))
    data = {"name": "gaussian_images", "classes": 2, "size": size, "examples": examples, "validation": 0, "test": 0}
    model = {"name": "cnn", "channels": [channels], "kernel_size": 1, "hidden": []}
    return job(model=model, data=data, batch_size="full", epochs=None, steps=10)


def crowded(target: Target) -> dict[str, tuple[JobSpec, int]]:
    """What does not fit into so many MiB, which is all of the device that the runner may take: a recipe that fills a
    large device before its first step is refused. The network has 125 million weights, 476 MiB.
    """
    model = {"name": "mlp", "hidden": target.choose([65536, 1900], [16])}
    fields = {"model": model, "data": {"name": "blobs", "examples": 1024}, "epochs": None, "steps": 10}
    ensemble = {"method": "checkpoints", "every": "5st", "members": 2}
    return {
        "weights and gradient": (job(**fields), 768),
        "the optimizer's state": (job(**fields, optimizer={"name": "adam"}), 1280),
        "an ensemble": (job(**fields, ensemble=ensemble), 1792),
    }


def heavy(target: Target) -> JobSpec:
    """6 GiB of weights, gradient and Adam's state: nothing for this device, too much for what a hog leaves."""
    hidden = target.choose([65536, 6144], [16])
    data = {"name": "blobs", "examples": 1024}
    adam = {"name": "adam"}
    return job(model={"name": "mlp", "hidden": hidden}, data=data, optimizer=adam, epochs=None, steps=10)


def told(finding: Finding, ended: Frame, where: str) -> None:
    """Whether the error says what ran out, and where, and blames nobody else."""
    error: dict[str, Any] = ended["error"] or {}
    fits = error.get("code") == CODE and error.get("where") == where and not error.get("foreign")
    finding.says(fits, f"{ended['outcome']}: {error}")


def idle(found: Service) -> float:
    """Bytes that are free less while a runner has its context."""
    before = found.target.memory().free
    attempt = found.begin("idle", small(epochs=None, steps=target_steps(found.target)))
    attempt.wait_for_kind("points", SECONDS)
    after = found.target.memory().free
    attempt.kill()
    return before - after


def target_steps(target: Target) -> int:
    """So many that a runner is still busy when it is looked at."""
    steps: int = target.choose(10**7, 10**6)
    return steps


def scarce(found: Service, report: Report, context: float) -> None:
    """A hog leaves no room for a context, then about as much as a small job needs, then too little for a large one."""
    with report.finding("a hog leaves no room for a context") as none, hogged(found.target, int(context / 2)) as free:
        _, ended = found.run("no-context", small(), SECONDS)
        judged(found.target, none, ended, free, may_succeed=False)
    for offset in found.target.choose((-64, -40, -16, 8), (8,)):
        leave = int(context + offset * MIB)
        with report.finding(f"a hog leaves {offset:+} MiB of what a small job holds") as some:
            with hogged(found.target, leave) as free:
                _, ended = found.run("scarce", small(), SECONDS)
            judged(found.target, some, ended, free, may_succeed=True)
    leave = int(context + found.target.choose(1024, 256) * MIB)
    with report.finding("a hog leaves too little for a large job") as large, hogged(found.target, leave) as free:
        _, ended = found.run("heavy", heavy(found.target), SECONDS, fault="oom-forward")
        judged(found.target, large, ended, free, may_succeed=False)


def judged(target: Target, finding: Finding, ended: Frame, free: int, *, may_succeed: bool) -> None:
    """The hog has to be blamed, which only a real device can tell; where there may have been enough, a success is
    right, too.
    """
    error: dict[str, Any] = ended["error"] or {}
    lacked = error.get("code") == CODE and bool(error.get("foreign", target.dry))
    enough = may_succeed and ended["outcome"] == "succeeded"
    finding.says(lacked or enough, f"{ended['outcome']}: {error}", free / MIB, "MiB free")


def works(found: Service, report: Report, when: str) -> None:
    """The next runner of the same zygote trains."""
    with report.finding(f"the next job works {when}") as next_one:
        _, ended = found.run("next", small(), SECONDS)
        next_one.says(ended["outcome"] == "succeeded", f"{ended['error']}")
