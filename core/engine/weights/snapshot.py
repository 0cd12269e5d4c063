"""Copies of weights at one step, independent of later training."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from core.engine.networks.network import Network


class WeightSnapshot:
    """A second network with a copy of weights and buffers; `step` is None before the first copy."""

    def __init__(self, prefix: str, network: Network) -> None:
        """`network` is a second network of the same shape."""
        self.prefix = prefix
        self.network = network
        self.step: int | None = None

    def copy_weights(self, done: int, network: Network) -> None:
        """Copy weights and buffers of `network` after `done` steps."""
        self.step = done
        self.network.copy(network)

    def tensors(self) -> dict[str, Tensor]:
        """The weights (P,), the buffers, and the step (-1: none)."""
        buffers = self.network.module.named_buffers()
        return {
            f"{self.prefix}weights": self.network.weights.detach(),
            f"{self.prefix}step": torch.tensor(-1 if self.step is None else self.step),
            **{f"{self.prefix}buffers.{name}": buffer for name, buffer in buffers},
        }

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        with torch.no_grad():
            self.network.weights.copy_(found[f"{self.prefix}weights"])
            for name, buffer in self.network.module.named_buffers():
                buffer.copy_(found[f"{self.prefix}buffers.{name}"])
        step = int(found[f"{self.prefix}step"])
        self.step = None if step < 0 else step


class Incumbent(WeightSnapshot):
    """The weights at the end of the last complete cycle of the schedule, the incumbent of SGDR (Loshchilov, 2017)."""

    def __init__(self, network: Network, cycles: Callable[[], Iterator[int]]) -> None:
        """`cycles()` gives the number of complete steps at the end of each cycle, ascending."""
        super().__init__("incumbent.", network)
        self._cycles = cycles
        self._ends = cycles()
        self._end = next(self._ends, None)

    def completes_cycle(self, done: int) -> bool:
        """Whether a cycle ends after `done` steps; call it in the order of the steps."""
        while self._end is not None and self._end < done:
            self._end = next(self._ends, None)
        return self._end == done

    def restore(self, found: Mapping[str, Tensor]) -> None:
        super().restore(found)
        self._ends = self._cycles()
        self._end = next(self._ends, None)
