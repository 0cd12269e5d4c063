"""The check of a GPU, without one: it stands on torch alone, it goes on behind what fails, and it can fail."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from core.recipe.spec import JobSpec
from tests.architecture.test_docs import table
from tests.architecture.test_imports import BLOCK, WALK, fresh, modules_outside
from tests.gpu.check import conduct
from tests.gpu.check.plan import STEPS, Step
from tests.gpu.check.played import CONTEXT, PLAYED_UUID, TOTAL, PlayedDevice, PlayedMemoryError
from tests.gpu.check.report import Report
from tests.gpu.check.steps import determinism, latency, memory, service, speed
from tests.gpu.check.target import ROOT, Target

MIB, GIB = 1 << 20, 1 << 30
LARGEST_DEVICE = 150 * GIB
ALONE = ("torch", "numpy", "safetensors", "pydantic", "nvidia-ml-py", "schedulefree", "pytorch-optimizer")


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_it_needs_no_package_of_the_web_stack() -> None:
    """The machine with the device has torch and a few wheels; what it starts is imported here with it."""
    blocked = [*modules_outside(ALONE), "core.jobs", "core.db", "core.store", "core.queue", "core.settings", "api"]
    assert {"sqlalchemy", "celery", "fastapi", "pydantic_settings", "sklearn", "pytest"} <= set(blocked)
    started = "import core.engine.device_probe, worker.runner, worker.zygote"
    fresh(f"{BLOCK}{WALK}every('tests.gpu.check')\nimport tests.gpu.check.__main__\n{started}", json.dumps(blocked))


def test_every_step_has_its_function_and_its_line_for_people() -> None:
    for step in STEPS:
        source = (ROOT / "tests" / "gpu" / "check" / "steps" / f"{step.module}.py").read_text()
        assert f"def {step.function}(target: Target, report: Report) -> None:" in source
    told = table((ROOT / "CONTRIBUTING.md").read_text(), "step", "what it proves")
    assert [row[0].strip("`") for row in told] == [step.name for step in STEPS]
    assert len(STEPS) == 10


def test_the_jobs_for_a_real_device_are_accepted_and_as_large_as_they_have_to_be(tmp_path: Path) -> None:
    """A dry run makes small ones; these are built here, so that no minute of a device goes to one that is refused."""
    real = Target("real", PLAYED_UUID, tmp_path)
    for built in (latency.networks(real), speed.networks(real)):
        assert all(isinstance(spec, JobSpec) for spec in built.values())
    assert len(list(service.specs(real))) == 3
    assert len(list(determinism.subjects())) > 25
    assert memory.small(epochs=None, steps=memory.target_steps(real)).shape().run.bounded
    wide, heavy = memory.wide(real), memory.heavy(real)
    assert 4 * wide.shape().batch * 32768 * wide.data.facts().features > 8 * LARGEST_DEVICE
    assert 4 * GIB < 16 * parameters(heavy) < 16 * GIB
    (weights, first), (optimizer, second), (ensemble, third) = memory.crowded(real).values()
    assert 8 * parameters(weights) > first * MIB  # with the gradient
    assert 8 * parameters(optimizer) < second * MIB < 16 * parameters(optimizer)  # with Adam's state
    assert 8 * parameters(ensemble) < third * MIB < (12 + 8) * parameters(ensemble)  # with another and two members


def parameters(spec: JobSpec) -> int:
    return spec.model.parameter_count(spec.data.facts())


def test_a_finding_survives_what_it_looks_at() -> None:
    out = io.StringIO()
    report = Report("a step", 0.0, out)
    with report.finding("broken"):
        raise ValueError("on purpose")
    with report.finding("endless") as endless:
        endless.says(ok=True, value=float("inf"), unit="s")
    with report.finding("silent"):
        pass
    broken, infinite, silent = lines(out.getvalue())
    assert (broken["ok"], infinite["ok"], silent["ok"]) == (False, True, False)
    assert "on purpose" in broken["detail"]
    assert (infinite["value"], infinite["detail"][:3]) == (None, "inf")
    assert list(broken) == ["step", "name", "ok", "seconds", "value", "unit", "detail"]


def test_a_step_that_hangs_is_ended_and_the_next_one_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has half a second, in which nobody imports torch; the second does not exist."""
    monkeypatch.setattr(conduct, "DRY_SECONDS", 0.3)
    monkeypatch.setattr(conduct, "SPARE", 0.2)
    out = io.StringIO()
    absent = Step("absent", "nowhere", "nothing", 1, "that a step may be missing")
    target = Target("played", PLAYED_UUID, tmp_path)
    tally = conduct.conduct(target, [STEPS[0], absent], 60.0, out)
    found = {line["step"]: line for line in lines(out.getvalue())}
    assert not found["isolation"]["ok"]
    assert "ended with -9" in found["isolation"]["detail"]
    assert not found["absent"]["ok"]
    assert len(tally.bad) == 2
    assert list(tmp_path.iterdir()) == []


def test_the_seconds_of_the_whole_check_bound_it(tmp_path: Path) -> None:
    out = io.StringIO()
    tally = conduct.conduct(Target("played", PLAYED_UUID, tmp_path), STEPS, 1.0, out)
    assert tally.good == 0
    assert [line["name"] for line in lines(out.getvalue())] == ["time"] * 10


def test_the_memory_of_the_dead_is_free(tmp_path: Path) -> None:
    """Unless the device leaks."""
    device = PlayedDevice(tmp_path)
    hold = "import sys; from pathlib import Path; from tests.gpu.check.played import *; PlayedDevice(Path(sys.argv[1]))"
    command = [sys.executable, "-c", f"{hold}.take(CONTEXT); print(); sys.stdin.read()", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        assert device.free() == TOTAL - CONTEXT
        with pytest.raises(PlayedMemoryError, match=r"CUDA out of memory\. Tried to allocate 1024\.00 MiB"):
            device.take(TOTAL)
        other.kill()
    assert device.free() == TOTAL
    assert PlayedDevice(tmp_path, leaks=True).free() == TOTAL - CONTEXT


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "flaw", "seen"),
    [("service", "bits", "killed and resumed, the same bits"), ("kills", "leak", "the memory is free")],
)
def test_a_device_with_a_flaw_is_found_out(step: str, flaw: str, seen: str) -> None:
    """All the rest of that step is as it should be; the whole dry run is part of .ci/run."""
    command = [sys.executable, "-m", "tests.gpu.check", "--dry-run", "--only", step, "--flaw", flaw]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 1, done.stderr
    *findings, summary = lines(done.stdout)
    assert not summary["ok"]
    assert any(seen in name for name in summary["bad"])
    assert len(summary["bad"]) == sum(not finding["ok"] for finding in findings)
    assert any(finding["ok"] for finding in findings if finding["name"] == "the whole step")
