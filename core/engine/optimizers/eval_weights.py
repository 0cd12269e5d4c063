"""Weights that a run is judged by where they are not those that it trains."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from core.engine.datasets.resident import Split
from core.engine.evaluation.evaluate import reestimate_batch_norm
from core.engine.networks.network import Network


class EvalWeights:
    """A second network for the weights that are judged; checkpoints hold those, so the trained ones are state."""

    def __init__(self, trained: Network, another: Callable[[], Network], train: Split, batch_size: int) -> None:
        """`another` makes a network like `trained`; batch norm is estimated on `train` in batches of `batch_size`."""
        self._trained = trained
        self._network = another()
        self._train = train
        self._batch_size = batch_size
        self._normalised = False

    def network_at(self, weights: Tensor) -> Network:
        """The second network with these weights (P,), its batch norm estimated at them."""
        if not (self._normalised and torch.equal(self._network.weights, weights)):
            with torch.no_grad():
                self._network.weights.copy_(weights)
            reestimate_batch_norm(self._network, self._train.inputs, self._batch_size)
            self._normalised = True
        return self._network

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The trained weights (P,) and buffers."""
        buffers = {f"{prefix}buffers.{name}": each for name, each in self._trained.module.named_buffers()}
        return {f"{prefix}weights": self._trained.weights.detach(), **buffers}

    def restore(self, prefix: str, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors(), in place."""
        with torch.no_grad():
            for name, own in self.tensors(prefix).items():
                own.copy_(found[name])
