"""The GPUs that a worker takes for its own, and whether there is room on them; fakes play probe, NVML and driver."""

import fcntl
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.settings import Settings
from worker.devices import inventory as inventories
from worker.devices.devices import Devices, has_driver, opened_devices
from worker.devices.inventory import build_inventory
from worker.devices.locks import DeviceLocks
from worker.devices.monitor import DeviceMemory
from worker.devices.report import REMEDIES, DeviceReport

FIRST, SECOND = "GPU-11111111-aaaa-4bbb-8ccc-000000000001", "GPU-22222222-aaaa-4bbb-8ccc-000000000002"
TOTAL = 80_000_000_000


class FilledMonitor:
    """NVML on a machine whose devices have so much free memory, one number for each time that it is asked."""

    def __init__(self, free: dict[str, list[int]]) -> None:
        self._free = free

    def uuids(self) -> list[str]:
        return list(self._free)

    def memory(self, uuid: str) -> DeviceMemory | None:
        left = self._free.get(uuid, [])
        return DeviceMemory(TOTAL, left.pop(0) if len(left) > 1 else left[0]) if left else None


def well(token: str) -> DeviceReport:
    return DeviceReport(token, ok=True, name="H", uuid=token.removeprefix("GPU-"), memory_bytes=TOTAL)


def machine(free: int = TOTAL, probe: Callable[[str], DeviceReport] = well) -> Devices:
    return Devices(probe, FilledMonitor({FIRST: [free], SECOND: [free]}))


def test_a_device_without_room_is_not_offered() -> None:
    """By half of its memory, or by another share; one that does not work is not asked for its memory."""
    assert machine(TOTAL // 2).check_device(FIRST).ok
    full = machine(TOTAL // 2 - 1).check_device(FIRST)
    assert (full.ok, full.reason, full.name) == (False, "memory_in_use", "H")
    assert full.detail == "40.0 of 80.0 GB are in use by others"
    assert replace(machine(TOTAL // 4), free_share=0.25).check_device(FIRST).ok
    ill = DeviceReport.from_failure(FIRST, "failed", "ECC")
    assert machine(0, lambda _: ill).check_device(FIRST) == ill
    assert machine(0).check_device("0") == well("0"), "where NVML says nothing, nothing is held against the device"


def test_memory_that_a_runner_has_just_left_is_waited_for() -> None:
    devices = Devices(well, FilledMonitor({FIRST: [0, 0, TOTAL]}))
    assert devices.await_room(FIRST, threading.Event()) is None
    assert machine().await_room("0", threading.Event()) is None


def test_memory_that_stays_in_use_is_reported() -> None:
    """After the time for it, and at once when the worker stops."""
    report = replace(machine(0), settle_seconds=0.0).await_room(FIRST, threading.Event())
    assert report is not None
    assert (report.ok, report.reason) == (False, "memory_in_use")
    stopping = threading.Event()
    stopping.set()
    assert replace(machine(0), settle_seconds=600.0).await_room(FIRST, stopping) == report


def test_a_second_worker_leaves_the_devices_of_the_first(tmp_path: Path) -> None:
    settings = Settings(device_locks=tmp_path / "locks")
    with opened_devices(settings, wanted=True, devices=machine(), environ={"CUDA_VISIBLE_DEVICES": "0"}) as first:
        assert [report.token for report in first] == [FIRST]
        with opened_devices(settings, wanted=True, devices=machine(), environ={}) as second:
            assert [report.token for report in second] == [SECOND]
    with opened_devices(settings, wanted=True, devices=machine(), environ={}) as later:
        assert [report.token for report in later] == [FIRST, SECOND]


def test_a_device_is_locked_by_what_it_is_and_not_by_how_it_is_called(tmp_path: Path) -> None:
    """One worker names it by its number and one by its UUID."""
    settings, by_number = (
        Settings(device_locks=tmp_path),
        Devices(lambda token: DeviceReport(token, ok=True, uuid=FIRST)),
    )
    with (
        opened_devices(settings, wanted=True, devices=by_number, environ={}, ask_torch=lambda: ["0"]) as first,
        opened_devices(settings, wanted=True, devices=machine(), environ={}) as second,
    ):
        assert [report.token for report in (*first, *second)] == ["0", SECOND]


def test_a_device_that_does_not_work_is_kept_all_the_same(tmp_path: Path) -> None:
    """It may work later, and belongs to one worker until then: also when the next one finds it well."""
    ill = DeviceReport.from_failure(FIRST, "timeout", "no answer in 90 s")
    devices = machine(probe=lambda token: ill if token == FIRST else well(token))
    settings = Settings(device_locks=tmp_path)
    with opened_devices(settings, wanted=True, devices=devices, environ={}) as found:
        assert found == [ill, well(SECOND)]
        with opened_devices(settings, wanted=True, devices=machine(), environ={}) as second:
            assert second == []


def test_without_a_folder_for_locks_devices_are_offered_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(device_locks=tmp_path / "file" / "locks")
    with opened_devices(settings, wanted=True, devices=machine(), environ={}) as found:
        assert len(found) == 2


def test_who_wants_no_gpu_asks_nobody(tmp_path: Path) -> None:
    def never(_: str) -> DeviceReport:
        raise AssertionError("a device was probed")

    settings = Settings(device_locks=tmp_path / "locks")
    with opened_devices(settings, wanted=False, devices=machine(probe=never)) as found:
        assert found == []
    with opened_devices(
        settings, wanted=True, devices=machine(probe=never), environ={"CUDA_VISIBLE_DEVICES": ""}
    ) as none:
        assert none == []
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_asked_where_there_is_no_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its import takes seconds at every start of a worker; a driver has nodes in /dev."""
    asked: list[str] = []
    monkeypatch.setattr("worker.devices.devices.list_devices", lambda: asked.append("torch") or [])
    without_nvml = Devices(well, FilledMonitor({}))
    for driver in (False, True):
        monkeypatch.setattr("worker.devices.devices.has_driver", lambda driver=driver: driver)
        with opened_devices(Settings(device_locks=tmp_path), wanted=True, devices=without_nvml, environ={}) as found:
            assert found == []
    assert asked == ["torch"]


@pytest.mark.parametrize(("node", "there"), [("nvidia0", True), ("dxg", True), ("nvhost-gpu", True), ("null", False)])
def test_a_driver_is_known_by_its_nodes(tmp_path: Path, node: str, there: bool) -> None:
    (tmp_path / node).touch()
    assert has_driver(tmp_path) is there


def test_whether_a_device_is_held_is_seen_without_taking_it(tmp_path: Path) -> None:
    """A worker that starts at that moment gets it."""
    locks, other = DeviceLocks(tmp_path), DeviceLocks(tmp_path)
    assert not other.is_held("a")
    assert locks.try_lock("a")
    assert other.is_held("a")
    locks.close()
    assert not other.is_held("a")
    with (tmp_path / "a.lock").open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it


def test_the_inventory_leaves_a_served_device_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A context beside a job takes memory from it, and its memory is in use because the job uses it."""
    answers: list[list[str]] = []

    def ask(arguments: list[str], token: str | None, seconds: float) -> dict[str, Any]:
        answers.append([*arguments, token or ""])
        return {"ok": True, "torch": "2.13.0", "cuda": "13.0", "name": "H", "uuid": token, "devices": []}

    monkeypatch.setattr(inventories, "run_probe", ask)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    locks = DeviceLocks(tmp_path)
    assert locks.try_lock(well(FIRST).identity)
    found = build_inventory(tmp_path, 0.5, FilledMonitor({FIRST: [0], SECOND: [0]}))
    locks.close()
    assert answers == [["--list", ""], [SECOND]]
    served, full = found["devices"]
    assert served == {"ok": True, "found": f"{FIRST}, which a worker on this host serves", "remedy": None}
    assert full["found"] == f"{SECOND} cannot be used (memory_in_use): 80.0 of 80.0 GB are in use by others"
    assert (full["ok"], full["remedy"]) == (False, REMEDIES["memory_in_use"])
    json.dumps(found)
