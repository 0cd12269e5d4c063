"""Slots: what a machine offers, and who gets one."""

from dataclasses import replace

import pytest

from core.errors import Misconfigured
from core.jobs.health.workers import SlotState, SlotUsage
from worker.attempt import Slot
from worker.devices.report import DeviceReport
from worker.launcher import ProcessExit, RunnerProcess
from worker.slots import SlotPool, plan_slots


def working(*tokens: str) -> list[DeviceReport]:
    return [DeviceReport(token, ok=True) for token in tokens]


def broken(*tokens: str) -> list[DeviceReport]:
    return [DeviceReport.from_failure(token, "no_device", "No CUDA GPUs are available") for token in tokens]


def test_gpus_first_then_the_cpu() -> None:
    slots = plan_slots(3, ["cpu", "gpu"], working("GPU-a", "GPU-b"))
    assert slots == (Slot(0, "gpu", "GPU-a"), Slot(1, "gpu", "GPU-b"), Slot(2, "cpu", ""))
    assert [slot.needs for slot in slots] == [("gpu", "any"), ("gpu", "any"), ("cpu", "any")]


def test_a_cpu_slot_sees_no_gpu_and_a_queue_that_is_not_served_gets_no_slot() -> None:
    assert plan_slots(2, ["cpu"], working("GPU-a", "GPU-b")) == (Slot(0, "cpu", ""), Slot(1, "cpu", ""))
    assert plan_slots(4, ["gpu"], working("GPU-a")) == (Slot(0, "gpu", "GPU-a"),)
    assert plan_slots(1, ["cpu", "gpu"], []) == (Slot(0, "cpu", ""),)


def test_a_gpu_that_does_not_work_is_a_slot_for_later() -> None:
    """A CPU slot serves in its place meanwhile; no more GPUs than slots were asked for."""
    gpus = broken("GPU-a", "GPU-b", "GPU-c") + working("GPU-d")
    slots = plan_slots(3, ["cpu", "gpu"], gpus)
    assert slots == (
        Slot(0, "gpu", "GPU-d"),
        Slot(1, "cpu", ""),
        Slot(2, "cpu", ""),
        Slot(3, "gpu", "GPU-a"),
        Slot(4, "gpu", "GPU-b"),
    )
    assert plan_slots(1, ["cpu", "gpu"], broken("GPU-a")) == (Slot(0, "cpu", ""), Slot(1, "gpu", "GPU-a"))


def test_a_worker_for_gpus_alone_says_why_there_is_none() -> None:
    with pytest.raises(Misconfigured, match=r"GPU-a cannot be used \(no_device\): No CUDA GPUs are available"):
        plan_slots(1, ["gpu"], broken("GPU-a"))


@pytest.mark.parametrize(("count", "queues"), [(0, ["cpu"]), (1, []), (1, ["tpu"]), (1, ["gpu"])])
def test_no_slot_at_all_is_refused(count: int, queues: list[str]) -> None:
    with pytest.raises(Misconfigured):
        plan_slots(count, queues, [])


def test_a_slot_out_of_service_is_offered_to_nobody() -> None:
    slots = SlotPool([Slot(0, "gpu", "GPU-a"), Slot(1, "gpu", "GPU-b")], broken("GPU-b"))
    assert slots.count_slots() == {"gpu": SlotUsage(1, 1)}
    mine = slots.take_slot("gpu")
    assert mine == Slot(0, "gpu", "GPU-a")
    assert slots.take_slot("gpu") is None
    (report,) = broken("GPU-a")
    slots.retire_slot(mine, report)
    assert not slots.release_slot(mine)
    assert slots.take_slot("gpu") is None
    assert slots.count_slots() == {"gpu": SlotUsage(0, 0)}
    assert slots.idle_kinds(0.0) == []
    assert slots.retired_slots() == {mine: report, Slot(1, "gpu", "GPU-b"): broken("GPU-b")[0]}
    slots.restore_slot(mine)
    assert slots.take_slot("gpu") == mine


def test_a_slot_says_what_it_computes_on_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a device is known from the probe that opened it, whatever is reported of it later."""
    monkeypatch.setattr("time.time", lambda: 100.0)
    well = DeviceReport("GPU-a", ok=True, name="H", memory_bytes=80)
    slots = SlotPool([Slot(0, "gpu", "GPU-a"), Slot(1, "gpu", "GPU-b"), Slot(2, "cpu", "")], [well, *broken("GPU-b")])
    good = SlotState("gpu", "GPU-a", in_service=True, since=100.0, name="H", memory_bytes=80)
    why = {"reason": "no_device", "detail": "No CUDA GPUs are available"}
    assert slots.slot_states() == (good, SlotState("gpu", "GPU-b", in_service=False, since=100.0, **why))
    mine, cpu = slots.take_slot("gpu"), slots.take_slot("cpu")
    assert mine
    assert cpu
    for at in (200.0, 300.0):  # a probe that fails again changes nothing about since when
        monkeypatch.setattr("time.time", lambda at=at: at)
        slots.retire_slot(mine, broken("GPU-a")[0])
    assert slots.slot_states()[0] == replace(good, in_service=False, since=200.0, **why)
    slots.retire_slot(cpu, DeviceReport.from_failure("cpu", "unkillable", "it hangs"))
    assert slots.slot_states()[2] == SlotState(
        "cpu", "", in_service=False, since=300.0, reason="unkillable", detail="it hangs"
    )
    slots.restore_slot(mine, replace(well, name="H2"))
    slots.restore_slot(cpu)
    assert slots.slot_states()[0] == replace(good, since=300.0, name="H2")
    assert len(slots.slot_states()) == 2


class Leftover(RunnerProcess):
    """A process in the kernel's hands."""

    def __init__(self) -> None:
        self.how: ProcessExit | None = None

    def wait(self, timeout: float) -> ProcessExit | None:
        return self.how


def test_a_slot_is_empty_when_what_was_left_in_it_is_gone() -> None:
    slots, leftover = SlotPool([Slot(0, "cpu", "")]), Leftover()
    mine = slots.take_slot("cpu")
    assert mine is not None
    slots.retire_slot(mine, DeviceReport.from_failure("cpu", "unkillable", "it hangs"), leftover)
    assert not slots.is_empty(mine)
    leftover.how = ProcessExit(signal=9)
    assert slots.is_empty(mine)


def test_a_slot_is_taken_once_and_who_came_in_vain_is_remembered() -> None:
    slots = SlotPool([Slot(0, "cpu"), Slot(1, "gpu")])
    mine = slots.take_slot("cpu")
    assert mine == Slot(0, "cpu")
    assert slots.take_slot("cpu") is None
    assert slots.release_slot(mine)  # look again: a hint was dropped
    assert slots.take_slot("cpu") == mine
    assert not slots.release_slot(mine)
    assert slots.kinds == ("cpu", "gpu")


def test_slots_are_counted_by_kind() -> None:
    slots = SlotPool([Slot(0, "cpu"), Slot(1, "cpu"), Slot(2, "gpu")])
    assert slots.count_slots() == {"cpu": SlotUsage(2, 2), "gpu": SlotUsage(1, 1)}
    mine = slots.take_slot("gpu")
    assert mine is not None
    assert slots.count_slots() == {"cpu": SlotUsage(2, 2), "gpu": SlotUsage(1, 0)}
    slots.release_slot(mine)
    assert slots.count_slots()["gpu"] == SlotUsage(1, 1)


def test_only_slots_that_were_free_for_a_while_are_polled() -> None:
    slots = SlotPool([Slot(0, "cpu"), Slot(1, "cpu"), Slot(2, "gpu")])
    slots.take_slot("gpu")
    assert slots.idle_kinds(0.0) == ["cpu", "cpu"]
    assert slots.idle_kinds(60.0) == []
