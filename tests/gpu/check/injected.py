"""What a runner of the check does besides its job: the faults that no job can ask for, and the played device.

Laid into the zygote before it forks, see injection/sitecustomize.py. A job whose name ends in `@fault` meets it.
Real devices meet real faults; a played one says what CUDA would say.
"""

import os
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import torch

from core.engine import build, loop
from core.engine.analysis import run_analysis
from core.engine.failure import device_failed
from core.recipe.assignment import Assignment
from core.recipe.plan import ExecutionPlan
from tests.gpu.check.played import CONTEXT, MIB
from tests.gpu.check.target import SETTING, Target

AT: Final = 3  # the gradient before which a fault happens, counted from 1
SLOW_SECONDS: Final = 0.005
LONG_SECONDS: Final = 60.0  # of a kernel, unless somebody ends it
CLOCK: Final = 1.9e9  # cycles of a large GPU in a second, about
HELD: Final = 256 * MIB  # by a runner that has a long kernel; 16 times as much on a real device
BAD_KERNEL: Final = 'extern "C" __global__ void bad(float* p) { p[1LL << 40] = 1.0f; }'

Fault = Callable[[Target, Assignment, torch.device], None]


def install() -> None:
    """Wrap what this process's runners will call."""
    target = Target.read(os.environ[SETTING])
    plainly = loop.train

    def train(assignment: Assignment, *arguments: Any, **options: Any) -> Any:
        arm(target, assignment)
        return plainly(assignment, *arguments, **options)

    loop.train = train
    if target.dry:
        build.open_device = run_analysis.open_device = partial(open_played, target, build.open_device)


def open_played(target: Target, plainly: Callable[[ExecutionPlan], torch.device], plan: ExecutionPlan) -> torch.device:
    """As the engine opens a real one: it may be hidden, and a context needs memory."""
    if not target.played.visible():
        raise device_failed(RuntimeError("No CUDA GPUs are available"))
    target.played.take(CONTEXT)
    return plainly(plan)


def arm(target: Target, assignment: Assignment) -> None:
    """Make this process's one job meet its fault."""
    fault = assignment.job.partition("@")[2]
    if fault.startswith("oom-build") and target.dry:
        build.build_stepper = no_memory
    elif fault.startswith("oom-build"):
        build.open_device = partial(open_limited, build.open_device, int(fault.rpartition("-")[2]) * MIB)
    elif fault == "oom-forward" and target.dry:
        build.build_gradient = partial(_without_memory, build.build_gradient)
    elif fault == "slow":
        build.build_gradient = partial(_slowed, build.build_gradient)
    elif fault in FAULTS or target.flaw == "bits":
        build.build_gradient = partial(_interrupted, build.build_gradient, FAULTS.get(fault), target, assignment)


def open_limited(plainly: Callable[[ExecutionPlan], torch.device], size: int, plan: ExecutionPlan) -> torch.device:
    """As the engine opens a device, of which torch's allocator then gives so many bytes and no more."""
    device = plainly(plan)
    _, total = torch.cuda.mem_get_info(device)
    torch.cuda.set_per_process_memory_fraction(size / total, device)
    return device


def no_memory(*_arguments: object, **_options: object) -> Any:
    """In the words of torch's allocator."""
    raise RuntimeError("CUDA out of memory. Tried to allocate 512.00 GiB. GPU 0 has a total capacity of 1.00 GiB.")


def _without_memory(plainly: Callable[..., Any], network: Any, _loss: Any, *rest: Any, **more: Any) -> Any:
    """The engine's gradient, in whose passes memory runs out."""
    return plainly(network, no_memory, *rest, **more)


def _slowed(plainly: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """The engine's gradient, with time between two of them to be paused or killed, however busy this machine is."""
    gradient = plainly(*arguments, **more)

    def slow(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        time.sleep(SLOW_SECONDS)
        loss: torch.Tensor = gradient(inputs, targets)
        return loss

    return slow


def _interrupted(
    plainly: Callable[..., Any],
    fault: Fault | None,
    target: Target,
    assignment: Assignment,
    network: Any,
    *rest: Any,
    **more: Any,
) -> Any:
    """The engine's gradient, before whose third call something happens."""
    gradient, calls = plainly(network, *rest, **more), [0]

    def counted(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == AT and target.flaw == "bits":
            blur(network.weights)
        if calls[0] == AT and fault:
            fault(target, assignment, inputs.device)
        loss: torch.Tensor = gradient(inputs, targets)
        return loss

    return counted


def blur(weights: Any) -> None:
    """A device that computes something else each time."""
    with torch.no_grad():
        weights += 1e-3 * random.SystemRandom().random()


def illegal_access(target: Target, _assignment: Assignment, device: torch.device) -> None:
    """A kernel writes 4 TiB behind a tensor. Compiled in place; where that fails, an index that nobody checks."""
    if target.dry:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    place = torch.zeros(1, device=device)
    try:
        torch.cuda._compile_kernel(BAD_KERNEL, "bad")(args=[place])
    except (AttributeError, ImportError, OSError, RuntimeError):
        index = torch.tensor([1 << 40], device=device)
        torch.ops.aten._index_put_impl_(place, [index], torch.ones(1, device=device), True, True)


def device_assert(target: Target, _assignment: Assignment, device: torch.device) -> None:
    """A kernel's own check fails."""
    if target.dry:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")
    torch.zeros(2, device=device)[torch.tensor([5], device=device)].clone()


def long_kernel(target: Target, assignment: Assignment, device: torch.device) -> None:
    """A kernel that runs for a minute, and memory; a mark beside the scratch folder says that it is under way."""
    if target.dry:
        target.played.take(HELD)
        mark(assignment)
        time.sleep(LONG_SECONDS)
        return
    held = torch.ones(16 * HELD, dtype=torch.uint8, device=device)
    torch.cuda.synchronize()
    torch.cuda._sleep(int(LONG_SECONDS * CLOCK))
    mark(assignment)
    torch.cuda.synchronize()
    del held


def mark(assignment: Assignment) -> None:
    """Say that a fault is under way."""
    assignment.scratch.with_suffix(".mark").touch()


FAULTS: Final[dict[str, Fault]] = {
    "illegal-access": illegal_access,
    "device-assert": device_assert,
    "long-kernel": long_kernel,
}
