"""Which GPUs a worker finds, whether they work, who has them: real probe processes with a torch that a file plays."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.architecture.tree import ROOT
from worker.devices import probe
from worker.devices.candidates import candidate_devices, chosen_devices
from worker.devices.locks import DeviceLocks
from worker.devices.monitor import DeviceMemory, NvmlMonitor
from worker.devices.report import REMEDIES, DeviceReport

FIRST, SECOND = "GPU-11111111-aaaa-4bbb-8ccc-000000000001", "GPU-22222222-aaaa-4bbb-8ccc-000000000002"
SLICE = "MIG-33333333-aaaa-4bbb-8ccc-000000000003"
GOOD = {"name": "Fake H1", "uuid": FIRST.removeprefix("GPU-"), "memory": 80 << 30, "free": 79 << 30}

Machine = Callable[..., None]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes the next probes see these devices, by token; keywords say what is wrong with all of it."""
    library = tmp_path / "library"
    shutil.copytree(ROOT / "tests" / "support" / "fake_torch", library)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(library), str(ROOT), str(ROOT / "sdk")]))

    def made(devices: dict[str, Any], cuda: str | None = "13.0", **wrong: str) -> None:
        (library / "machine.json").write_text(json.dumps({"devices": devices, "cuda": cuda, **wrong}))

    return made


class FakeMonitor:
    """A DeviceMonitor of a list."""

    def __init__(self, *uuids: str) -> None:
        self._uuids = list(uuids)

    def uuids(self) -> list[str]:
        return self._uuids

    def memory(self, uuid: str) -> DeviceMemory | None:
        return None


def nothing() -> list[str]:
    raise AssertionError("torch was asked although NVML knows")


def test_a_probe_says_what_the_device_is(machine: Machine) -> None:
    machine({FIRST: GOOD})
    report = probe.probe_device(FIRST)
    assert report.ok
    assert (report.name, report.capability, report.cuda) == ("Fake H1", "9.0", "13.0")
    assert (report.memory_bytes, report.free_bytes) == (80 << 30, 79 << 30)
    assert report.identity == GOOD["uuid"]
    assert report.describe_with_remedy().startswith(f"{FIRST}: Fake H1, 86 GB, compute capability 9.0")


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("CUDA error: an illegal memory access was encountered", "failed"),
        ("CUDA error: uncorrectable ECC error encountered", "failed"),
        ("CUDA error: no kernel image is available for execution on the device", "unsupported_device"),
        ("CUDA error: out of memory\nCUDA kernel errors might be …", "memory_in_use"),
    ],
)
def test_a_device_that_fails_is_named_with_its_reason(machine: Machine, said: str, reason: str) -> None:
    machine({FIRST: {**GOOD, "error": said}})
    report = probe.probe_device(FIRST)
    assert (report.ok, report.reason, report.detail) == (False, reason, said.splitlines()[0])
    assert REMEDIES[reason] in report.describe_with_remedy()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("The NVIDIA driver on your system is too old (found version 11040).", "driver_too_old"),
        ("Found no NVIDIA driver on your system.", "no_driver"),
        ("No CUDA GPUs are available", "no_device"),
    ],
)
def test_a_machine_without_a_usable_driver(machine: Machine, said: str, reason: str) -> None:
    machine({FIRST: GOOD}, error=said)
    assert probe.probe_device(FIRST).reason == reason
    assert probe.list_devices() == []


def test_a_torch_without_cuda_is_no_engine_error(machine: Machine) -> None:
    machine({FIRST: GOOD}, cuda=None)
    assert probe.probe_device(FIRST).reason == "torch_without_cuda"


def test_a_device_that_computes_wrong_numbers_is_not_used(machine: Machine) -> None:
    machine({FIRST: {**GOOD, "computes": False}})
    report = probe.probe_device(FIRST)
    assert (report.ok, report.detail) == (False, "a product of integers is wrong")


def test_a_probe_that_hangs_or_dies_is_an_answer(machine: Machine) -> None:
    machine({FIRST: {**GOOD, "hangs": True}, SECOND: {**GOOD, "dies": True}})
    assert probe.run_probe([], FIRST, seconds=1.0)["reason"] == "timeout"
    dead = probe.probe_device(SECOND)
    assert (dead.ok, dead.reason) == (False, "failed")
    assert "lost the device" in (dead.detail or "")


def test_devices_are_probed_side_by_side_and_answer_in_order(machine: Machine) -> None:
    machine({FIRST: GOOD, SECOND: {**GOOD, "error": "CUDA error: unknown error"}})
    assert [report.ok for report in probe.probe_devices([SECOND, FIRST])] == [False, True]


def test_torch_lists_what_nvml_cannot(machine: Machine) -> None:
    nameless = {**GOOD, "uuid": "00000000-0000-0000-0000-000000000000"}
    machine({FIRST: GOOD, "1": nameless})
    assert probe.list_devices() == [FIRST, "1"]


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        (None, None),
        ("all", None),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("void", []),
        ("0,-1,1", ["0"]),
        ("0, 1", ["0", "1"]),
        ("1,1,0", ["1", "0"]),
        (f"{FIRST},{FIRST}", [FIRST]),
        (f"{FIRST},banana,{SECOND}", [FIRST]),
        (f"{SLICE}", [SLICE]),
        ("1gpu", []),
    ],
)
def test_what_cuda_visible_devices_means(value: str | None, devices: list[str] | None) -> None:
    assert chosen_devices(value) == devices


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (None, [FIRST, SECOND]),
        ("1,0", [SECOND, FIRST]),
        ("0,0", [FIRST]),
        ("GPU-2222", [SECOND]),
        (f"0,{FIRST}", [FIRST]),
        ("7", ["7"]),
        ("", []),
    ],
)
def test_devices_are_named_by_their_uuid(chosen: str | None, found: list[str]) -> None:
    environ = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    assert candidate_devices(environ, FakeMonitor(FIRST, SECOND), nothing) == found


def test_without_nvml_torch_is_asked() -> None:
    assert candidate_devices({}, FakeMonitor(), lambda: ["0"]) == ["0"]
    assert candidate_devices({}, FakeMonitor(SLICE), nothing) == [SLICE]
    assert candidate_devices({"CUDA_VISIBLE_DEVICES": "0"}, FakeMonitor(SLICE), nothing) == ["0"]


class NvmlError(Exception):
    """As pynvml's."""


def fake_nvml(**changes: Any) -> SimpleNamespace:
    """A pynvml on a machine with one whole GPU and one that is divided into two instances."""

    def instance(device: str, index: int) -> str:
        if index > 1:
            raise NvmlError("not found")
        return f"{device}/{index}"

    def mig_mode(device: str) -> tuple[int, int]:
        if device == "gpu0":
            raise NvmlError("not supported")
        return (1, 1)

    names = {"gpu0": FIRST, "gpu1": SECOND, "gpu1/0": SLICE, "gpu1/1": f"{SLICE[:-1]}4"}
    return SimpleNamespace(
        **{
            "NVMLError": NvmlError,
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: f"gpu{index}",
            "nvmlDeviceGetMigMode": mig_mode,
            "nvmlDeviceGetMaxMigDeviceCount": lambda _: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": instance,
            "nvmlDeviceGetUUID": names.__getitem__,
            "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=100, free=40),
            **changes,
        }
    )


def test_nvml_names_instances_instead_of_a_divided_gpu() -> None:
    monitor = NvmlMonitor(fake_nvml())
    assert monitor.list_uuids() == [FIRST, SLICE, f"{SLICE[:-1]}4"]
    assert monitor.device_memory(FIRST) == DeviceMemory(100, 40)


def test_nvml_that_fails_says_nothing() -> None:
    def fails(*_: object) -> None:
        raise NvmlError("driver not loaded")

    assert NvmlMonitor(fake_nvml(nvmlInit=fails)).list_uuids() == []
    broken = NvmlMonitor(fake_nvml(nvmlDeviceGetCount=fails, nvmlDeviceGetMemoryInfo=fails))
    assert (broken.list_uuids(), broken.device_memory(FIRST)) == ([], None)
    assert NvmlMonitor().list_uuids() == []  # this machine has none


HOLD = """
import sys
from pathlib import Path
from worker.devices.locks import DeviceLocks
locks = DeviceLocks(Path(sys.argv[1]))
print(locks.take(sys.argv[2]), flush=True)
sys.stdin.read()
"""


def test_a_device_is_locked_until_its_worker_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), "a"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout
    assert other.stdout.readline() == b"True\n"
    ours = DeviceLocks(folder)
    assert [ours.try_lock("a"), ours.try_lock("b"), ours.try_lock("b")] == [False, True, True]
    assert folder.stat().st_mode & 0o7777 == 0o1777
    other.kill()
    other.communicate()
    assert ours.try_lock("a")
    ours.close()
    again = DeviceLocks(folder)
    assert again.try_lock("a")
    again.close()


def test_a_lock_has_a_safe_file_name(tmp_path: Path) -> None:
    locks = DeviceLocks(tmp_path)
    assert locks.try_lock("../../etc/passwd")
    locks.close()
    assert [path.parent for path in tmp_path.iterdir()] == [tmp_path]


def test_a_report_without_a_uuid_is_known_by_its_token() -> None:
    assert DeviceReport("0", ok=True, uuid="00000000-0000-0000-0000-000000000000").identity == "0"
    assert DeviceReport("0", ok=True, uuid=None).identity == "0"
