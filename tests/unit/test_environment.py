"""What an attempt says of where it computes, and what of that makes another one approximate."""

from typing import Any

import pytest
import torch

from core.engine import environment
from core.engine.environment import about, differences
from core.recipe.plan import ExecutionPlan

PLAN = ExecutionPlan(
    device="cuda", threads=1, precision="fp32", kernel="autograd", compile=False, deterministic=True, versions={}
)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(environment, "driver_version", lambda: "580.65.06")
    return about(torch.device("cuda", 0), PLAN)


def test_a_gpu_is_told_with_its_driver_and_libraries(on_a_gpu: dict[str, Any]) -> None:
    assert (on_a_gpu["device"], on_a_gpu["driver"]) == ("NVIDIA H200", "580.65.06")
    assert (on_a_gpu["versions"]["cuda"], on_a_gpu["versions"]["cudnn"]) == ("13.0", "91900")


def test_a_cpu_has_none_of_that() -> None:
    found = about(torch.device("cpu"), PLAN)
    assert "driver" not in found
    assert not found["versions"].keys() & {"cuda", "cudnn"}


@pytest.mark.parametrize("before", [{}, {"driver": None}, {"driver": "570.1.2"}], ids=["older", "unknown", "other"])
def test_another_driver_computes_the_same_bits(on_a_gpu: dict[str, Any], before: dict[str, Any]) -> None:
    """A job that the previous release paused tells of none."""
    rest = {name: each for name, each in on_a_gpu.items() if name != "driver"}
    assert differences({**rest, **before}, on_a_gpu) == []


def test_other_libraries_do_not(on_a_gpu: dict[str, Any]) -> None:
    other = {**on_a_gpu, "versions": {**on_a_gpu["versions"], "cudnn": "90000"}}
    assert differences(other, on_a_gpu) == ["cudnn: 90000 before, 91900 now"]


def test_what_only_one_side_has_may_change_bits(on_a_gpu: dict[str, Any]) -> None:
    """Fewer examples at once, from some attempt on."""
    assert differences(on_a_gpu, {**on_a_gpu, "micro_batch": 32}) == ["micro_batch: None before, 32 now"]
