"""The best weights of a run so far, and how long it has been since: what early stopping knows."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.engine.networks.network import Network
from core.recipe.stopping import EarlyStopping


class Best:
    """A network of its own holds weights and buffers as they were at the best evaluation; `step` is None before any."""

    prefix = "best."

    def __init__(self, policy: EarlyStopping, network: Network, start: int) -> None:
        """`network` is a second network of the same shape; evaluations of fewer than `start` steps do not count."""
        self.policy = policy
        self.network = network
        self.step: int | None = None
        self._start = start
        self._value = 0.0
        self._wait = 0

    @property
    def exhausted(self) -> bool:
        """Whether patience is at its end."""
        return self._wait >= self.policy.patience

    def judge(self, done: int, value: float, trained: Network) -> bool:
        """Take in one evaluation, of `trained` after `done` steps. True when it is the best so far."""
        if done < self._start:
            return False
        if not self.policy.improves(value, None if self.step is None else self._value):
            self._wait += 1
            return False
        self.step, self._value, self._wait = done, value, 0
        with torch.no_grad():
            self.network.weights.copy_(trained.weights)
            for own, buffer in zip(self.network.module.buffers(), trained.module.buffers(), strict=True):
                own.copy_(buffer)
        return True

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: the weights (P,), the buffers, and the bookkeeping."""
        buffers = {f"best.buffers.{name}": each for name, each in self.network.module.named_buffers()}
        step = -1 if self.step is None else self.step
        return {
            "best.weights": self.network.weights.detach(),
            "best.value": torch.tensor(self._value, dtype=torch.float64),
            "best.step": torch.tensor(step),
            "best.wait": torch.tensor(self._wait),
            **buffers,
        }

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        with torch.no_grad():
            self.network.weights.copy_(found["best.weights"])
            for name, buffer in self.network.module.named_buffers():
                buffer.copy_(found[f"best.buffers.{name}"])
        step = int(found["best.step"])
        self.step, self._value = None if step < 0 else step, float(found["best.value"])
        self._wait = int(found["best.wait"])
