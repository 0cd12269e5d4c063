"""Stochastic weight averaging: the one place where averaged weights are made."""

import torch
from torch import Tensor

from core.engine.datasets.resident import Part
from core.engine.evaluate import reestimate_batch_norm
from core.engine.networks.network import Network
from core.recipe.averaging import SwaPhase


class RunningMean:
    """The mean of the weights collected so far, as a network of its own. The trained one is never touched."""

    def __init__(self, phase: SwaPhase, network: Network, train: Part, batch_size: int) -> None:
        """`network` is a second network of the same shape; its weights become the mean."""
        self.phase = phase
        self.models = 0
        self._network = network
        self._train = train
        self._batch_size = batch_size
        self._normalised = 0

    def collect(self, weights: Tensor) -> None:
        """Mean <- mean + (weights - mean) / n for the n-th model: one lerp over the flat buffer."""
        self.models += 1
        with torch.no_grad():
            self._network.weights.lerp_(weights, 1 / self.models)

    def network(self) -> Network:
        """The averaged network, its batch norm estimated again on the train part if models came in since."""
        if self._normalised != self.models:
            reestimate_batch_norm(self._network, self._train.inputs, self._batch_size)
            self._normalised = self.models
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: the mean (P,) and how many models are in it."""
        return {"swa.mean": self._network.weights.detach(), "swa.models": torch.tensor(self.models)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of tensors()."""
        with torch.no_grad():
            self._network.weights.copy_(tensors["swa.mean"])
        self.models = int(tensors["swa.models"])
