"""The weights that a run is evaluated at, where they differ from those that it trains."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.networks.network import Network


class EvalWeights:
    """A second network with the weights for evaluation. Checkpoints hold these weights; the trained ones are state."""

    def __init__(self, trained: Network, make_network: Callable[[], Network], train: Split, batch_size: int) -> None:
        """`make_network` builds one like `trained`; batch norm is estimated on `train` in batches of `batch_size`."""
        self._trained = trained
        self._network = make_network()
        self._train = train
        self._batch_size = batch_size
        self._normalised = False

    def network_at(self, weights: Tensor) -> Network:
        """The second network with these weights (P,) and batch-norm statistics estimated at them."""
        if not (self._normalised and torch.equal(self._network.weights, weights)):
            with torch.no_grad():
                self._network.weights.copy_(weights)
            reestimate_batch_norm(self._network, self._train, self._batch_size)
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
