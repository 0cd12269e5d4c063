"""The ten steps, in the order of what one wants to know first where time is short."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Step:
    """A function of a module below `steps`, and the seconds that it may take on a real device."""

    name: str
    module: str
    function: str
    seconds: float
    proves: str


STEPS: Final = (
    Step("isolation", "isolation", "isolation", 90, "the zygote touches no CUDA, runners do, and see what they may"),
    Step("service", "service", "service_like", 90, "paused or killed, a job ends with the bits of an undisturbed one"),
    Step("determinism", "determinism", "determinism", 120, "the same job has the same bits every time"),
    Step("arithmetic", "arithmetic", "arithmetic", 60, "fp32 is fp32, and written-out gradients are autograd's"),
    Step("resume", "resume", "resume", 120, "every optimizer and everything with a state resumes bit-exact"),
    Step("memory", "memory", "memory", 130, "no memory is told as no memory, with whose fault it is"),
    Step("sticky", "failures", "sticky", 70, "a broken context is told, and the next runner works"),
    Step("kills", "failures", "kills", 80, "after a SIGKILL in a kernel the memory is free again"),
    Step("latency", "latency", "latency", 90, "a cancelled or stopped job ends soon, however much is queued"),
    Step("speed", "speed", "speed", 120, "what a step, a context and each analysis cost; values as on a CPU"),
)
