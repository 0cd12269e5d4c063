"""What an attempt says of where it computes, and what of that makes another one approximate."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from core.engine import environment
from core.engine.environment import describe_device, environment_differences
from core.recipe.assignment import Assignment
from core.recipe.component import Spec
from core.recipe.plan import CAME_LATER, ExecutionPlan
from tests.support.jobs import small_spec

PLAN = ExecutionPlan(
    device="cuda", threads=1, precision="fp32", kernel="autograd", compile=False, deterministic=True, versions={}
)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91900)
    monkeypatch.setattr(environment, "driver_version", lambda: "580.65.06")
    return describe_device(torch.device("cuda", 0), PLAN)


def test_a_gpu_is_told_with_its_driver_and_libraries(on_a_gpu: dict[str, Any]) -> None:
    assert (on_a_gpu["device"], on_a_gpu["driver"]) == ("NVIDIA H200", "580.65.06")
    assert (on_a_gpu["versions"]["cuda"], on_a_gpu["versions"]["cudnn"]) == ("13.0", "91900")


def test_a_cpu_has_none_of_that() -> None:
    found = describe_device(torch.device("cpu"), PLAN)
    assert "driver" not in found
    assert not found["versions"].keys() & {"cuda", "cudnn"}


@pytest.mark.parametrize("before", [{}, {"driver": None}, {"driver": "570.1.2"}], ids=["older", "unknown", "other"])
def test_another_driver_computes_the_same_bits(on_a_gpu: dict[str, Any], before: dict[str, Any]) -> None:
    """A job that the previous release paused tells of none."""
    rest = {name: each for name, each in on_a_gpu.items() if name != "driver"}
    assert environment_differences({**rest, **before}, on_a_gpu) == []


def test_other_libraries_do_not(on_a_gpu: dict[str, Any]) -> None:
    other = {**on_a_gpu, "versions": {**on_a_gpu["versions"], "cudnn": "90000"}}
    assert environment_differences(other, on_a_gpu) == ["cudnn: 90000 before, 91900 now"]


def test_what_only_one_side_has_may_change_bits(on_a_gpu: dict[str, Any]) -> None:
    """Fewer examples at once, from some attempt on."""
    assert environment_differences(on_a_gpu, {**on_a_gpu, "micro_batch": 32}) == ["micro_batch: None before, 32 now"]


class LaterPlan(ExecutionPlan):
    """The plan of a release that has one field more."""

    fused: bool = False


class EarlierPlan(Spec):
    """The plan of a release that has one field less, as far as an environment needs it."""

    threads: int = 1
    precision: str = "fp32"
    deterministic: bool = True

    def environment(self) -> dict[str, Any]:
        return self.dump()


CPU = torch.device("cpu")
FUSED = {**CAME_LATER, "fused": False}
KERNEL = {**CAME_LATER, "kernel": "autograd"}


def later_plan(**fields: Any) -> LaterPlan:
    return LaterPlan(**{**PLAN.model_dump(), **fields})


def test_a_resume_stays_exact_where_a_release_adds_a_field_to_the_plan() -> None:
    """In both directions: a rolling upgrade goes on with a job on the old release too."""
    before = describe_device(CPU, PLAN)
    assert environment_differences(before, describe_device(CPU, later_plan()), FUSED) == []
    assert environment_differences(describe_device(CPU, later_plan()), before, FUSED) == []
    written_out = {**before, "fused": False}
    assert environment_differences(before, written_out, FUSED) == []
    assert environment_differences(written_out, before, FUSED) == []


def test_another_value_of_an_added_field_is_approximate() -> None:
    found = environment_differences(describe_device(CPU, PLAN), describe_device(CPU, later_plan(fused=True)), FUSED)
    assert found == ["fused: False before, True now"]


def test_a_resume_stays_exact_where_a_release_removes_a_field_from_the_plan() -> None:
    before, now = describe_device(CPU, PLAN), describe_device(CPU, EarlierPlan())  # type: ignore[arg-type]
    assert ("kernel" in before, "kernel" in now) == (True, False)
    assert environment_differences(before, now, KERNEL) == []


def test_another_value_of_a_removed_field_is_approximate() -> None:
    before = {**describe_device(CPU, PLAN), "kernel": "compiled"}
    found = environment_differences(before, describe_device(CPU, EarlierPlan()), KERNEL)  # type: ignore[arg-type]
    assert found == ["kernel: compiled before, autograd now"]


def test_a_field_that_is_missing_in_the_table_is_not_taken_for_equal() -> None:
    found = environment_differences(
        describe_device(CPU, PLAN), describe_device(CPU, later_plan(fused=True)), CAME_LATER
    )
    assert found == ["fused: None before, True now"]


def test_every_field_of_the_plan_that_came_later_is_in_the_table() -> None:
    """A field without a default would make the stored plans of older releases unreadable."""
    required = {"device", "threads", "precision", "kernel", "compile", "deterministic", "versions"}  # the first release
    later = {name: field for name, field in ExecutionPlan.model_fields.items() if name not in required}
    assert {name: field.default for name, field in later.items()} == {name: CAME_LATER[name] for name in later}


def test_a_field_that_came_later_is_stored_only_where_it_changes_something() -> None:
    """The release before refuses a plan with a field that it does not know."""
    first = PLAN.model_dump(exclude=set(CAME_LATER))
    assert json.loads(later_plan().stored_json()) == first
    assert json.loads(later_plan(fused=True, micro_batch=4).stored_json()) == {**first, "fused": True, "micro_batch": 4}


def test_a_stored_plan_with_a_field_more_or_less_is_readable() -> None:
    """The removed field is ignored, and a field that came later takes the value of the table."""
    stored = {**PLAN.model_dump(exclude=set(CAME_LATER)), "tf32": "never"}
    assert ExecutionPlan.model_validate_json(json.dumps(stored)) == PLAN


def test_a_runner_reads_an_assignment_with_such_a_plan(tmp_path: Path) -> None:
    """A worker's zygote is started again from the code that is installed by then."""
    given = Assignment(job="job_a", attempt=1, spec=small_spec(), plan=PLAN, dataset=tmp_path, scratch=tmp_path)
    frame = json.loads(given.model_dump_json())
    frame["plan"] |= {"tf32": "never"}
    del frame["plan"]["micro_batch"]
    assert Assignment.model_validate_json(json.dumps(frame)) == given
