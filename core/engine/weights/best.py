"""Early stopping: the best weights of a run so far, and the number of evaluations since."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.engine.networks.network import Network
from core.engine.weights.snapshot import WeightSnapshot
from core.recipe.stopping import EarlyStopping


class BestWeights(WeightSnapshot):
    """Weights and buffers at the best evaluation, of the trained network or of an average."""

    def __init__(self, policy: EarlyStopping, network: Network, start: int) -> None:
        """`network` is a second network of the same shape; evaluations of fewer than `start` steps do not count."""
        super().__init__("best.", network)
        self.policy = policy
        self.weights = policy.monitored_weights()
        self._start = start
        self._value = 0.0
        self._wait = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether the patience is spent."""
        return self._wait >= self.policy.patience

    @property
    def restores_best(self) -> bool:
        """Whether the best weights replace the last ones in results."""
        return self.policy.restore_best and self.step is not None

    def record_evaluation(self, done: int, value: float, network: Network) -> bool:
        """Record the evaluation of `network` after `done` steps. If it is the best, copy it and return True."""
        if done < self._start:
            return False
        if not self.policy.is_improvement(value, None if self.step is None else self._value):
            self._wait += 1
            return False
        self._value, self._wait = value, 0
        self.copy_weights(done, network)
        return True

    def tensors(self) -> dict[str, Tensor]:
        """Weights (P,), buffers and step of the best, its value, float64 (), and the evaluations since, int64 ()."""
        return super().tensors() | {
            "best.value": torch.tensor(self._value, dtype=torch.float64),
            "best.wait": torch.tensor(self._wait),
        }

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        super().restore(found)
        self._value, self._wait = float(found["best.value"]), int(found["best.wait"])
