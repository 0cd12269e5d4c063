"""The expected failures of a run, each with a code, a message and a remedy for the user."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

import torch

from core.engine.cuda_errors import MemoryFacts, is_creation_error, is_device_error, is_memory_error, memory_facts
from core.engine.device_probe import failure_reason
from core.machine_failure import is_machine_failure

Code = Literal["bad_data", "out_of_memory", "diverged", "device_failed", "engine_error", "machine_failed"]
Where = Literal["build", "forward"]

OUT_OF_MEMORY_SIGNS = ("can't allocate memory", "out of memory", "cannot allocate memory")
PASSING: Final = "examples were on their way through the network"  # a note that an exception carries
GIB: Final = 1 << 30
HOST: Final = torch.device("cpu")
LESS: Final[dict[Where, str]] = {
    "forward": "Use a smaller batch or a narrower model, or a larger machine.",
    "build": (
        "Weights, the optimizer's state, averages, kept weights and the data together do not fit, however few examples "
        "are computed at once: use a smaller model, an optimizer with less state, fewer averages or members of an "
        "ensemble, or a larger machine."
    ),
}
OTHER_DEVICE: Final = 'or run the job without a GPU ("resources": {"device": "cpu"}).'
REPAIRS: Final = {
    "torch_without_cuda": f"Install a torch that was built for CUDA where the worker runs, {OTHER_DEVICE}",
    "driver_too_old": f"Update the NVIDIA driver of the worker's machine, {OTHER_DEVICE}",
    "no_driver": f"Install the NVIDIA driver on the worker's machine, {OTHER_DEVICE}",
    "no_device": f"Show the worker a GPU that works (nvidia-smi lists them), {OTHER_DEVICE}",
    "unsupported_device": f"Install a torch that was built for this kind of GPU, {OTHER_DEVICE}",
}
REPAIR: Final = (
    "The device failed, not the job: run it on another one. nvidia-smi and the kernel's log (Xid) on the worker's "
    "machine show details."
)


class EngineError(Exception):
    """An expected failure: `code` and `details` for programs, message and `remedy` for the user."""

    def __init__(self, code: Code, message: str, remedy: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code: Code = code
        self.remedy = remedy
        self.details = dict(details or {})

    def as_document(self) -> dict[str, Any]:
        """The content of a job's `error`."""
        return {"code": self.code, "message": str(self), "remedy": self.remedy, **self.details}


class DivergedError(EngineError):
    """A loss or a weight is no longer finite. `step` optimizer steps were complete and finite."""

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(
            "diverged",
            f"{what} (optimizer step {step}, learning rate {lr:g})",
            "Lower the learning rate, add warm-up, or use standardised inputs.",
        )
        self.step = step


def known_failure(error: BaseException, device: torch.device = HOST) -> EngineError | None:
    """The failure that an error means: machine, memory or device. None: the error is a bug.

    No call goes to a device that failed: it might never return.
    """
    if is_machine_failure(error):
        message = getattr(error, "strerror", None) or str(error)
        return EngineError(
            "machine_failed", message, "Check this machine's disk, memory and limits, then resume the job."
        )
    if isinstance(error, OSError):
        return None
    memory = _is_out_of_memory(error)
    facts = memory_facts(device, error) if memory or is_creation_error(error) else None
    if memory or is_memory_error(error, facts):
        return out_of_memory(error, facts)
    return device_failed(error) if is_device_error(error) else None


def device_not_opened(error: BaseException) -> EngineError:
    """The failure to open a device. If its memory is full, other processes fill it: the job holds none yet."""
    if not _is_out_of_memory(error):
        return device_failed(error)
    return out_of_memory(error, memory_facts(torch.device("cuda"), error), foreign=True)


def device_failed(error: BaseException) -> EngineError:
    """The failure of a device; `reason` in its details is one of core.engine.device_probe."""
    reason, detail = failure_reason(error)["reason"], failure_reason(error)["detail"]
    return EngineError("device_failed", detail, REPAIRS.get(reason, REPAIR), {"reason": reason})


def out_of_memory(error: BaseException, facts: MemoryFacts | None = None, *, foreign: bool = False) -> EngineError:
    """The failure of memory that ran out.

    Its details have `where`: "forward" (in a pass of examples, so that fewer at once may fit) or "build". On a GPU they
    also have `memory`, the facts, and `foreign`: true if other processes hold the memory that this job needs.
    """
    where: Where = "forward" if PASSING in getattr(error, "__notes__", ()) else "build"
    foreign = foreign or (facts is not None and facts.is_foreign())
    details: dict[str, Any] = {"where": where}
    details |= {"foreign": True} if foreign else {}
    details |= {"memory": facts.as_document()} if facts else {}
    message = (str(error) or "memory ran out").splitlines()[0]
    return EngineError("out_of_memory", message, _memory_remedy(where, facts, foreign=foreign), details)


def _memory_remedy(where: Where, facts: MemoryFacts | None, *, foreign: bool) -> str:
    """The remedy: end other processes, or make the job smaller."""
    if foreign:
        held = f"{facts.foreign_bytes / GIB:.1f} of {facts.total / GIB:.1f} GiB" if facts else "the memory"
        return f"Other processes hold {held} of this device: end them, or run the job on another device."
    own = f" Of the device's {facts.total / GIB:.1f} GiB the job had {facts.peak / GIB:.1f}." if facts else ""
    return f"{LESS[where]}{own}"


@contextmanager
def passing_examples() -> Iterator[None]:
    """Inside, examples pass through the network: an out-of-memory error gets the note PASSING."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        note_pass(error)
        raise


def note_pass(error: BaseException) -> None:
    """Add the note PASSING to an out-of-memory error; called directly where a context manager costs too much."""
    if _is_out_of_memory(error) or is_creation_error(error):
        error.add_note(PASSING)


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    on_host = isinstance(error, MemoryError) or any(sign in text for sign in OUT_OF_MEMORY_SIGNS)
    return on_host or is_memory_error(error)
