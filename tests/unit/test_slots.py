"""Slots: what a machine offers, and who gets one."""

from dataclasses import replace

import pytest

from core.errors import Misconfigured
from core.jobs.health.workers import SlotState, Tally
from worker.attempt import Slot
from worker.devices.report import DeviceReport
from worker.launcher import Exit, RunnerProcess
from worker.slots import Slots, plan_slots


def working(*tokens: str) -> list[DeviceReport]:
    return [DeviceReport(token, ok=True) for token in tokens]


def broken(*tokens: str) -> list[DeviceReport]:
    return [DeviceReport.failed(token, "no_device", "No CUDA GPUs are available") for token in tokens]


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
    slots = Slots([Slot(0, "gpu", "GPU-a"), Slot(1, "gpu", "GPU-b")], broken("GPU-b"))
    assert slots.tally() == {"gpu": Tally(1, 1)}
    mine = slots.take("gpu")
    assert mine == Slot(0, "gpu", "GPU-a")
    assert slots.take("gpu") is None
    (report,) = broken("GPU-a")
    slots.retire(mine, report)
    assert not slots.release(mine)
    assert slots.take("gpu") is None
    assert slots.tally() == {"gpu": Tally(0, 0)}
    assert slots.idle(0.0) == []
    assert slots.retired() == {mine: report, Slot(1, "gpu", "GPU-b"): broken("GPU-b")[0]}
    slots.restore(mine)
    assert slots.take("gpu") == mine


def test_a_slot_says_what_it_computes_on_and_since_when(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a device is known from the probe that opened it, whatever is reported of it later."""
    monkeypatch.setattr("time.time", lambda: 100.0)
    well = DeviceReport("GPU-a", ok=True, name="H", memory_bytes=80)
    slots = Slots([Slot(0, "gpu", "GPU-a"), Slot(1, "gpu", "GPU-b"), Slot(2, "cpu", "")], [well, *broken("GPU-b")])
    good = SlotState("gpu", "GPU-a", in_service=True, since=100.0, name="H", memory_bytes=80)
    why = {"reason": "no_device", "detail": "No CUDA GPUs are available"}
    assert slots.states() == (good, SlotState("gpu", "GPU-b", in_service=False, since=100.0, **why))
    mine, cpu = slots.take("gpu"), slots.take("cpu")
    assert mine
    assert cpu
    for at in (200.0, 300.0):  # a probe that fails again changes nothing about since when
        monkeypatch.setattr("time.time", lambda at=at: at)
        slots.retire(mine, broken("GPU-a")[0])
    assert slots.states()[0] == replace(good, in_service=False, since=200.0, **why)
    slots.retire(cpu, DeviceReport.failed("cpu", "unkillable", "it hangs"))
    assert slots.states()[2] == SlotState(
        "cpu", "", in_service=False, since=300.0, reason="unkillable", detail="it hangs"
    )
    slots.restore(mine, replace(well, name="H2"))
    slots.restore(cpu)
    assert slots.states()[0] == replace(good, since=300.0, name="H2")
    assert len(slots.states()) == 2


class Leftover(RunnerProcess):
    """A process in the kernel's hands."""

    def __init__(self) -> None:
        self.how: Exit | None = None

    def wait(self, timeout: float) -> Exit | None:
        return self.how


def test_a_slot_is_empty_when_what_was_left_in_it_is_gone() -> None:
    slots, leftover = Slots([Slot(0, "cpu", "")]), Leftover()
    mine = slots.take("cpu")
    assert mine is not None
    slots.retire(mine, DeviceReport.failed("cpu", "unkillable", "it hangs"), leftover)
    assert not slots.is_empty(mine)
    leftover.how = Exit(signal=9)
    assert slots.is_empty(mine)


def test_a_slot_is_taken_once_and_who_came_in_vain_is_remembered() -> None:
    slots = Slots([Slot(0, "cpu"), Slot(1, "gpu")])
    mine = slots.take("cpu")
    assert mine == Slot(0, "cpu")
    assert slots.take("cpu") is None
    assert slots.release(mine)  # look again: a hint was dropped
    assert slots.take("cpu") == mine
    assert not slots.release(mine)
    assert slots.kinds == ("cpu", "gpu")


def test_slots_are_counted_by_kind() -> None:
    slots = Slots([Slot(0, "cpu"), Slot(1, "cpu"), Slot(2, "gpu")])
    assert slots.tally() == {"cpu": Tally(2, 2), "gpu": Tally(1, 1)}
    mine = slots.take("gpu")
    assert mine is not None
    assert slots.tally() == {"cpu": Tally(2, 2), "gpu": Tally(1, 0)}
    slots.release(mine)
    assert slots.tally()["gpu"] == Tally(1, 1)


def test_only_slots_that_were_free_for_a_while_are_polled() -> None:
    slots = Slots([Slot(0, "cpu"), Slot(1, "cpu"), Slot(2, "gpu")])
    slots.take("gpu")
    assert slots.idle(0.0) == ["cpu", "cpu"]
    assert slots.idle(60.0) == []
