"""The zygote has no CUDA, its runners do, and each sees the devices that it was given."""

from collections.abc import Sequence
from pathlib import Path

from core.recipe.spec import JobSpec
from tests.gpu.check.attempts import Service, service
from tests.gpu.check.report import Report
from tests.gpu.check.steps.probes import probes
from tests.gpu.check.target import Target
from tests.gpu.specs import IMAGES, MODELS
from tests.train.runs import job

SECONDS = 60.0
HIDDEN = "GPU-ffffffff-ffff-4fff-8fff-ffffffffffff"


def isolation(target: Target, report: Report) -> None:
    """Devices first: a probe, then a service."""
    probes(target, report)
    with service(target) as found:
        report.says("a zygote is ready", ok=True, value=found.ready_seconds, unit="s")
        _fork(found, report)
        _side_by_side(found, report)


def small(**fields: object) -> JobSpec:
    """A second of work for nobody."""
    base = {"model": MODELS["cnn"], "data": IMAGES, "optimizer": {"name": "adam", "lr": 0.01}, "epochs": 3}
    return job(**{**base, **fields})


def open_devices(pid: int | None) -> Sequence[str]:
    """The files of NVIDIA's driver that a process has open."""
    links = (str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir())
    return sorted(link for link in links if link.startswith("/dev/nvidia"))


def _fork(found: Service, report: Report) -> None:
    with report.finding("the zygote has no device open") as before:
        held = open_devices(found.launcher.pid)
        before.says(ok=not held, detail=f"open: {held}")
    with report.finding("a forked runner computes on the device") as forked:
        _, ended = found.run("forked", small(), SECONDS)
        forked.says(ok=ended["outcome"] == "succeeded", detail=f"{ended['error']}")
    with report.finding("a second one does, from the same zygote") as second:
        _, ended = found.run("second", small(), SECONDS)
        held = open_devices(found.launcher.pid)
        second.says(ok=ended["outcome"] == "succeeded" and not held, detail=f"{ended['error']}, zygote: {held}")
    with report.finding("the runner used the device that it was given") as used:
        kind = found.attempts[-1].environment()["kind"]
        used.says(ok=kind == found.target.device, detail=kind)


def _side_by_side(found: Service, report: Report) -> None:
    """At the same time: two on the device, one that may see none, one that is given another."""
    spec = small(epochs=20)
    ours = [found.begin(f"ours-{number}", spec) for number in range(2)]
    hidden = found.begin("hidden", spec, devices="")
    other = found.begin("other", spec, devices=HIDDEN)
    with report.finding("two runners share a device and get the same bits") as shared:
        outcomes = [each.ended(SECONDS)["outcome"] for each in ours]
        same = ours[0].digests() == ours[1].digests()
        shared.says(ok=outcomes == ["succeeded"] * 2 and same, detail=f"{outcomes}, same bits: {same}")
    for attempt, name in ((hidden, "none"), (other, "one that is not there")):
        with report.finding(f"a runner that is given {name} sees no device") as blind:
            ended = attempt.ended(SECONDS)
            error = ended["error"] or {}
            blind.says(ok=error.get("reason") == "no_device", detail=f"{ended['outcome']}: {error}")
