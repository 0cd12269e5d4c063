"""Why a run cannot go on, in words that its owner can act on."""

from typing import Literal

from core.machine import is_machine_failure

Code = Literal["bad_data", "out_of_memory", "diverged", "engine_error", "machine_failed"]

OUT_OF_MEMORY_SIGNS = ("can't allocate memory", "out of memory", "cannot allocate memory")


class EngineError(Exception):
    """An expected way to fail: `code` for programs, message and `remedy` for people."""

    def __init__(self, code: Code, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code: Code = code
        self.remedy = remedy

    def document(self) -> dict[str, str]:
        """As it stands in a job's `error`."""
        return {"code": self.code, "message": str(self), "remedy": self.remedy}


class DivergedError(EngineError):
    """A loss or a weight is no longer a finite number. `step` optimizer steps were complete and finite."""

    def __init__(self, what: str, step: int, lr: float) -> None:
        super().__init__(
            "diverged",
            f"{what} (optimizer step {step}, learning rate {lr:g})",
            "Lower the learning rate, add warm-up, or use standardised inputs.",
        )
        self.step = step


def expected(error: BaseException) -> EngineError | None:
    """The failure that `error` stands for when its cause is known, else None: it is a bug."""
    if is_machine_failure(error):
        message = getattr(error, "strerror", None) or str(error)
        return EngineError("machine_failed", message, "See this machine's disk, memory and limits, then go on.")
    return None if isinstance(error, OSError) else out_of_memory(error)


def out_of_memory(error: BaseException) -> EngineError | None:
    """The failure that `error` stands for when it says that memory ran out, else None."""
    text = str(error)
    if not isinstance(error, MemoryError) and not any(sign in text.lower() for sign in OUT_OF_MEMORY_SIGNS):
        return None
    message = (text or "memory ran out").splitlines()[0]
    return EngineError("out_of_memory", message, "Use a smaller batch or a narrower model, or a larger machine.")
