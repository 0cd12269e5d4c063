"""When a slot that is out of service is probed, and what brings it back. Time is a number; probes are a list."""

import threading
from collections.abc import Iterable
from itertools import pairwise

import pytest

from tests.unit.test_devices import FakeMonitor
from worker.attempt import Slot
from worker.devices.devices import Devices
from worker.devices.report import DeviceReport
from worker.devices.slot_prober import SlotProber
from worker.launcher import ProcessExit, RunnerProcess
from worker.slots import SlotPool

GPU, CPU = Slot(0, "gpu", "GPU-a"), Slot(1, "cpu", "")
WELL = DeviceReport("GPU-a", ok=True, name="H")
ILL = DeviceReport.from_failure("GPU-a", "failed", "ECC")
LAST = 100.0


class Leftover(RunnerProcess):
    """A runner that does not die of SIGKILL until `how` is set."""

    def __init__(self) -> None:
        self.how: ProcessExit | None = None

    def wait(self, timeout: float) -> ProcessExit | None:
        return self.how


class Bench:
    """A prober whose clock we turn, second by second."""

    def __init__(self, last_seconds: float = LAST) -> None:
        self.slots = SlotPool([GPU, CPU])
        self.answer = ILL
        self.now = 1000.0
        self.probed: list[float] = []
        devices = Devices(self._probe, FakeMonitor())
        self.prober = SlotProber(self.slots, devices, threading.Event(), last_seconds, lambda: self.now)

    def _probe(self, token: str) -> DeviceReport:
        assert token == GPU.devices
        self.probed.append(self.now)
        return self.answer

    def fail(self, slot: Slot = GPU, leftover: RunnerProcess | None = None) -> float:
        """Somebody who holds the slot finds that it cannot be used; when that was."""
        assert self.slots.take_slot(slot.kind) == slot
        self.slots.retire_slot(slot, ILL, leftover)
        return self.now

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.prober.probe_due()
            self.now += 1.0

    def come_back(self) -> None:
        """The device works, and is found to."""
        self.answer = WELL
        while self.slots.retired_slots():
            self.pass_time(1)
        self.answer = ILL


def gaps(begun: float, times: Iterable[float]) -> list[float]:
    """The seconds before each of these moments, since the one before it."""
    listed = [begun, *times]
    return [after - before for before, after in pairwise(listed)]


def test_pauses_double_up_to_the_last() -> None:
    bench = Bench()
    begun = bench.fail()
    bench.pass_time(400)
    assert gaps(begun, bench.probed) == [15.0, 30.0, 60.0, 100.0, 100.0]
    assert bench.slots.retired_slots() == {GPU: ILL}


def test_no_pause_is_longer_than_what_was_set() -> None:
    bench = Bench(last_seconds=4.0)
    begun = bench.fail()
    bench.pass_time(10)
    assert gaps(begun, bench.probed) == [4.0, 4.0]


def test_a_device_that_works_again_is_offered() -> None:
    bench = Bench()
    begun = bench.fail()
    bench.pass_time(20)
    bench.come_back()
    assert gaps(begun, bench.probed) == [15.0, 30.0]
    assert bench.slots.take_slot("gpu") == GPU
    assert bench.slots.slot_states()[0].name == "H"


def test_a_relapse_goes_on_with_the_pauses() -> None:
    """A device that passes each probe and fails under each job would else be offered every fifteen seconds."""
    bench = Bench()
    for expected in ([15.0], [30.0], [60.0], [100.0], [100.0]):
        begun, bench.probed = bench.fail(), []
        bench.come_back()
        assert gaps(begun, bench.probed) == expected


def test_a_device_that_was_well_for_long_begins_anew() -> None:
    bench = Bench()
    bench.fail()
    bench.come_back()
    bench.pass_time(int(LAST))
    begun, bench.probed = bench.fail(), []
    bench.come_back()
    assert gaps(begun, bench.probed) == [15.0]


@pytest.mark.parametrize("slot", [GPU, CPU])
def test_a_slot_with_a_runner_left_in_it_stays_out(slot: Slot) -> None:
    """Its device is not even probed: the runner may hold all of its memory. A CPU slot needs nothing else."""
    bench, leftover = Bench(), Leftover()
    bench.answer = WELL
    bench.fail(slot, leftover)
    bench.pass_time(50)
    assert (bench.probed, bench.slots.retired_slots()) == ([], {slot: ILL})
    leftover.how = ProcessExit(signal=9)
    bench.pass_time(100)
    assert bench.slots.retired_slots() == {}
    assert len(bench.probed) == (1 if slot is GPU else 0)
    assert bench.slots.take_slot(slot.kind) == slot


def test_the_thread_survives_a_probe_that_raises() -> None:
    slots, stopping, calls = SlotPool([GPU], [ILL]), threading.Event(), threading.Semaphore(0)

    def probe(_: str) -> DeviceReport:
        calls.release()
        raise OSError("no process left")

    devices = Devices(probe, FakeMonitor())
    prober = SlotProber(slots, devices, stopping, last_seconds=0.001, tick_seconds=0.001)
    prober.start()
    assert calls.acquire(timeout=10)
    assert calls.acquire(timeout=10)
    stopping.set()
