"""Averaged weights: what every average can do, and the one place where they are made."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from core.engine.datasets.resident import Part
from core.engine.evaluate import reestimate_batch_norm
from core.engine.keeper import Keeper
from core.engine.networks.network import Network
from core.recipe.averaging import SwaPhase


class Average(Keeper, Protocol):
    """A network of its own, made from weights that the trained one visits. The trained one is never touched."""

    def collects(self, completed: int) -> bool:
        """Whether the weights after `completed` optimizer steps come in."""

    def collect(self, network: Network) -> None:
        """Take the weights in as they stand."""

    @property
    def ready(self) -> bool:
        """Whether there is something to judge yet."""

    def network(self) -> Network:
        """What is judged and saved, its batch norm in order."""

    def details(self) -> dict[str, Any]:
        """What its checkpoint's manifest says besides the metrics."""


class RunningMean:
    """Stochastic weight averaging: the mean of the weights collected so far."""

    prefix = "swa."

    def __init__(self, phase: SwaPhase, network: Network, train: Part, batch_size: int) -> None:
        """`network` is a second network of the same shape; its weights become the mean."""
        self.phase = phase
        self.models = 0
        self._network = network
        self._train = train
        self._batch_size = batch_size
        self._normalised = 0

    def collects(self, completed: int) -> bool:
        """As the phase has it."""
        return self.phase.collects(completed)

    def collect(self, network: Network) -> None:
        """Mean <- mean + (weights - mean) / n for the n-th model: one lerp over the flat buffer."""
        self.models += 1
        with torch.no_grad():
            self._network.weights.lerp_(network.weights, 1 / self.models)

    @property
    def ready(self) -> bool:
        """Once a model is in it."""
        return self.models > 0

    def details(self) -> dict[str, Any]:
        """How many models it is the mean of."""
        return {"models": self.models}

    def network(self) -> Network:
        """The averaged network, its batch norm estimated again on the train part if models came in since."""
        if self._normalised != self.models:
            reestimate_batch_norm(self._network, self._train.inputs, self._batch_size)
            self._normalised = self.models
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: the mean (P,) and how many models are in it."""
        return {"swa.mean": self._network.weights.detach(), "swa.models": torch.tensor(self.models)}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        with torch.no_grad():
            self._network.weights.copy_(found["swa.mean"])
        self.models = int(found["swa.models"])
