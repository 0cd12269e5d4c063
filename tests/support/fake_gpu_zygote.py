"""A zygote whose runners compute on the CPU what a plan wants on a GPU, and break where a file says; see fake_gpu.

python -m tests.support.fake_gpu_zygote FD PARENT
"""

import os
import signal
import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from core.engine import build, failure, loop
from core.engine.cuda_errors import MemoryFacts, requested_bytes
from core.engine.liveness import ReportAlive, report_nothing
from core.engine.run import Run
from core.recipe.assignment import Assignment
from tests.support.fake_gpu import TOTAL, FakeMachine, machine_here
from worker import zygote

ILLEGAL = "CUDA error: an illegal memory access was encountered"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"

real_build, real_describe = build.build_training_run, build.describe_environment


def describe(device: torch.device, plan: Any, *rest: Any) -> dict[str, Any]:
    found = real_describe(device, plan, *rest)
    return {**found, "kind": "cuda", "device": "Fake H1"} if plan.device == "cuda" else found


def build_on_gpu(assignment: Assignment, report_alive: ReportAlive = report_nothing) -> Run:
    if assignment.plan.device == "cpu":
        return real_build(assignment, report_alive)
    machine, token = machine_here(), os.environ["CUDA_VISIBLE_DEVICES"]
    if not machine.read()["gpus"][token]["works"]:
        raise failure.device_not_opened(torch.AcceleratorError(ILLEGAL))
    break_down(machine, token, assignment, -1)
    run = real_build(assignment, report_alive)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        break_down(machine, token, assignment, run.train_state.step)
        return run.gradient(inputs, targets)

    return replace(run, gradient=gradient)


def break_down(machine: FakeMachine, token: str, assignment: Assignment, step: int) -> None:
    """Whatever the file says about this job at this step; before there is anything it is step -1."""
    match machine.take_fault(assignment.spec.name, step):
        case "dies":
            machine.set_gpu(token, works=False)
            raise torch.AcceleratorError(ILLEGAL)
        case "sticky":
            raise torch.AcceleratorError(ILLEGAL)
        case "foreign":
            machine.set_gpu(token, free=0.05)
            with failure.passing_examples():
                raise torch.OutOfMemoryError(FULL)
        case "oom_build":
            raise torch.OutOfMemoryError(FULL)
        case "oom_forward":
            with failure.passing_examples():
                raise torch.OutOfMemoryError(FULL)
        case "killed_by_driver":
            machine.set_gpu(token, works=False)
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(600)
        case None:
            pass


def memory_facts(device: torch.device, error: BaseException) -> MemoryFacts | None:
    """As the file says; a gigabyte of it is ours."""
    if device.type == "cpu":
        return None
    free = machine_here().device_memory(os.environ["CUDA_VISIBLE_DEVICES"]).free
    return MemoryFacts(TOTAL, free, reserved=1 << 30, peak=1 << 30, requested=requested_bytes(str(error)))


if __name__ == "__main__":
    loop.build_training_run = build_on_gpu  # type: ignore[attr-defined]
    build.describe_environment = describe  # type: ignore[assignment, attr-defined]
    build.open_device = lambda _: torch.device("cpu")  # type: ignore[attr-defined]
    failure.memory_facts = memory_facts
    zygote.main()
