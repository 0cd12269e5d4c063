"""Slots: what a machine offers, and who gets one."""

from pathlib import Path

import pytest

from core.errors import Misconfigured
from core.jobs.workers import Tally
from worker.attempt import Slot
from worker.slots import Slots, plan_slots, visible_gpus


def test_gpus_first_then_the_cpu() -> None:
    slots = plan_slots(3, ["cpu", "gpu"], ["0", "1"])
    assert slots == (Slot(0, "gpu", "0"), Slot(1, "gpu", "1"), Slot(2, "cpu", ""))
    assert [slot.needs for slot in slots] == [("gpu", "any"), ("gpu", "any"), ("cpu", "any")]


def test_a_cpu_slot_sees_no_gpu_and_a_queue_that_is_not_served_gets_no_slot() -> None:
    assert plan_slots(2, ["cpu"], ["0", "1"]) == (Slot(0, "cpu", ""), Slot(1, "cpu", ""))
    assert plan_slots(4, ["gpu"], ["7"]) == (Slot(0, "gpu", "7"),)
    assert plan_slots(1, ["cpu", "gpu"], []) == (Slot(0, "cpu", ""),)


@pytest.mark.parametrize(("count", "queues"), [(0, ["cpu"]), (1, []), (1, ["tpu"]), (1, ["gpu"])])
def test_no_slot_at_all_is_refused(count: int, queues: list[str]) -> None:
    with pytest.raises(Misconfigured):
        plan_slots(count, queues, [])


def test_gpus_are_counted_without_asking_cuda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus(tmp_path) == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab")
    assert visible_gpus(tmp_path) == ["3", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus(tmp_path) == []


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
