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

from core.engine import build, loop
from core.engine.failure import EngineError
from core.engine.liveness import ReportAlive, unwatched
from core.engine.run import Run
from core.recipe.assignment import Assignment
from tests.support.fake_gpu import FakeMachine, machine_here
from worker import zygote

ILLEGAL = "CUDA error: an illegal memory access was encountered"
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB"

real_build, real_describe = build.build, build.describe


class CudaError(EngineError):
    """What the engine makes of an error of CUDA."""

    def __init__(self, code: Any, message: str, **details: Any) -> None:
        super().__init__(code, message, "Look at the machine.")
        self._details = details

    def document(self) -> dict[str, Any]:
        return {**super().document(), **self._details}


def describe(device: torch.device, plan: Any, *rest: Any) -> dict[str, Any]:
    found = real_describe(device, plan, *rest)
    return {**found, "kind": "cuda", "device": "Fake H1"} if plan.device == "cuda" else found


def build_on_gpu(assignment: Assignment, report_alive: ReportAlive = unwatched) -> Run:
    if assignment.plan.device == "cpu":
        return real_build(assignment, report_alive)
    machine, token = machine_here(), os.environ["CUDA_VISIBLE_DEVICES"]
    if not machine.read()["gpus"][token]["works"]:
        raise CudaError("device_failed", ILLEGAL)
    break_down(machine, token, assignment, -1)
    run = real_build(assignment, report_alive)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        break_down(machine, token, assignment, run.standing.step)
        return run.gradient(inputs, targets)

    return replace(run, gradient=gradient)


def break_down(machine: FakeMachine, token: str, assignment: Assignment, step: int) -> None:
    """Whatever the file says about this job at this step; before there is anything it is step -1."""
    match machine.take_fault(assignment.spec.name, step):
        case "dies":
            machine.set_gpu(token, works=False)
            raise CudaError("device_failed", ILLEGAL)
        case "sticky":
            raise CudaError("device_failed", ILLEGAL)
        case "foreign":
            machine.set_gpu(token, free=0.05)
            raise CudaError("out_of_memory", FULL, where="forward", foreign=True)
        case "oom_build":
            raise CudaError("out_of_memory", FULL, where="build")
        case "oom_forward":
            raise CudaError("out_of_memory", FULL, where="forward")
        case "killed_by_driver":
            machine.set_gpu(token, works=False)
            os.kill(os.getpid(), signal.SIGKILL)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hangs":
            time.sleep(600)
        case None:
            pass


if __name__ == "__main__":
    loop.build = build_on_gpu  # type: ignore[attr-defined]
    build.describe = describe  # type: ignore[assignment, attr-defined]
    build.open_device = lambda _: torch.device("cpu")  # type: ignore[attr-defined]
    zygote.main()
