"""The learning rate of every step, and what it remembers of a run."""

from collections.abc import Callable, Mapping

from torch import Tensor


class Rate:
    """t -> the rate of the t-th optimizer step, t = 0, 1, …"""

    prefix = "rate."

    def __init__(self, schedule: Callable[[int], float]) -> None:
        """`schedule` is the job's own function, phases of averaging included."""
        self._schedule = schedule

    def __call__(self, t: int) -> float:
        return self._schedule(t)

    def tensors(self) -> dict[str, Tensor]:
        """Nothing: a pure function of the step has no past."""
        return {}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
