"""What the worker learns of a device before it offers it."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.gpu.check.played import TOTAL
from tests.gpu.check.report import Report
from tests.gpu.check.target import ROOT, Target, path_with
from worker.devices.candidates import candidate_devices
from worker.devices.monitor import NvmlMonitor
from worker.devices.probe import list_devices, probe_device

ABSENT = "GPU-eeeeeeee-eeee-4eee-8eee-eeeeeeeeeeee"


def probes(target: Target, report: Report) -> None:
    """By UUID: the device, its number, and one that is not there."""
    with _torch_of(target):
        with report.finding("torch lists the device by its UUID") as listed:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)
            found = list_devices()
            listed.says(ok=target.token in found or target.token.startswith("MIG-"), detail=str(found))
        with report.finding("a probe says what the device is") as probed:
            said = probe_device(target.token)
            fits = said.ok and said.identity in target.token and bool(said.memory_bytes)
            probed.says(fits, said.describe_with_remedy(), said.free_bytes, "bytes free")
        with report.finding("a device that is not there is told as such") as absent:
            said = probe_device(ABSENT)
            absent.says(ok=not said.ok and said.reason == "no_device", detail=said.describe_with_remedy())
        with report.finding("what is chosen by number becomes a UUID") as chosen:
            tokens = candidate_devices({"CUDA_VISIBLE_DEVICES": "0"}, NvmlMonitor(), list_devices)
            chosen.says(ok=len(tokens) == 1, detail=f"{tokens} (a number where there is no NVML)")
    if not target.dry:
        target.use()


@contextmanager
def _torch_of(target: Target) -> Iterator[None]:
    """A played device is seen by the torch that the tests of the probe play, with that device in its machine.json."""
    if not target.dry:
        yield
        return
    before, library = os.environ.get("PYTHONPATH", ""), target.folder / "torch-of-a-probe"
    shutil.copytree(ROOT / "tests" / "support" / "fake_torch", library)
    uuid = target.token.removeprefix("GPU-")
    device = {"name": "played", "uuid": uuid, "memory": TOTAL, "free": target.played.free()}
    machine = {"devices": {target.token: device}, "cuda": "13.0"}
    (library / "machine.json").write_text(json.dumps(machine))
    os.environ["PYTHONPATH"] = path_with(library, ROOT)
    try:
        yield
    finally:
        os.environ["PYTHONPATH"] = before
