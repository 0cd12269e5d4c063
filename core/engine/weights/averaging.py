"""Averaged weights: the protocols of collectors and averages, SWA's running mean, and EMA."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from core.engine.checkpoints.stateful import Stateful
from core.engine.datasets.split import Split
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.networks.network import Network
from core.recipe.averaging import CollectionSteps, EmaPhase


class Collector(Stateful, Protocol):
    """Collects weights that the trained network visits. The trained network is never changed."""

    def collects(self, completed: int) -> bool:
        """Whether the weights after `completed` optimizer steps are collected."""

    def collect(self, network: Network) -> None:
        """Collect the present weights of `network`."""

    @property
    def ready(self) -> bool:
        """Whether enough weights are collected for an evaluation."""


class WeightAverage(Collector, Protocol):
    """A second network, computed from the collected weights."""

    def averaged_network(self) -> Network:
        """The network that is evaluated and saved, with batch-norm statistics that fit its weights."""

    def manifest_details(self) -> dict[str, Any]:
        """The entries of its checkpoint's manifest besides the metrics."""


class RunningMean:
    """Stochastic weight averaging (Izmailov et al. 2018): the mean of the weights collected so far.

    Their sum is kept: an addition costs half as much as an update of a mean, and rounds no more. After n models the
    error is of the order √n ε of the mean either way, since each addition rounds relative to the sum so far.
    """

    prefix = "swa."

    def __init__(
        self,
        collection_steps: CollectionSteps,
        network: Network,
        train: Split,
        batch_size: int,
        bn_source: Network | None = None,
    ) -> None:
        """`network` is a second network of the same shape; its weights become the mean.

        With a `lender`, the trained network, the mean has the present running statistics of that one.
        """
        self.collects = collection_steps.collects
        self.models = 0
        self._sum = torch.zeros_like(network.values)  # (P,)
        self._network = network
        self._train = train
        self._batch_size = batch_size
        self._lender = bn_source
        self._normalised = 0

    def collect(self, network: Network) -> None:
        """Sum <- sum + weights: one addition over the flat buffer (P,)."""
        self.models += 1
        self._sum.add_(network.values)

    def mean_weights(self) -> Tensor:
        """The averaged weights (P,)."""
        return self._sum / self.models

    @property
    def ready(self) -> bool:
        """True once a model is collected."""
        return self.models > 0

    def manifest_details(self) -> dict[str, Any]:
        """The number of models in the mean."""
        return {"models": self.models}

    def averaged_network(self) -> Network:
        """The averaged network; after new models its batch norm is estimated again on the train split."""
        if self._normalised != self.models:
            self._network.values.copy_(self.mean_weights())
            if self._lender is None:
                reestimate_batch_norm(self._network, self._train, self._batch_size)
            self._normalised = self.models
        if self._lender:
            copy_bn_stats(self._network, self._lender)
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """The sum (P,) and the number of models in it, int64 ()."""
        return {"swa.sum": self._sum, "swa.models": torch.tensor(self.models)}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self._sum.copy_(found["swa.sum"])
        self.models = int(found["swa.models"])
        self._normalised = 0


def copy_bn_stats(network: Network, bn_source: Network) -> None:
    """Copy the buffers of `lender`, running statistics among them, into `network`."""
    for own, buffer in zip(network.buffers, bn_source.buffers, strict=True):
        own.copy_(buffer)


SMALLEST: Final = 2.0**-20


class ExponentialMean:
    """EMA of weights and of batch norm's statistics; it begins as a copy of the first weights collected.

    The average is kept as `scale` times a sum (P,): a decay is then one multiplication of scalars, and a collection one
    addition over the buffer. Before `scale` becomes tiny, the sum is multiplied by it.
    """

    prefix = "ema."

    def __init__(self, phase: EmaPhase, network: Network, bn_source: Network | None = None) -> None:
        """`network` is a second network of the same shape; its weights become the average.

        With a `lender`, the trained network, the average has the present running statistics of that one.
        """
        self.collects = phase.collection_steps.collects
        self.models = 0
        self._phase = phase
        self._lender = bn_source
        # The decay of every collection but the first, computed once: in a small step each microsecond counts.
        self._steady = (
            None if phase.warmup else phase.decay_at(phase.collection_steps.first + phase.collection_steps.every)
        )
        self._network = network
        self._sum = torch.zeros_like(network.values)  # (P,)
        self._scale = 1.0

    def collect(self, network: Network) -> None:
        """Average <- d average + (1 - d) weights; one addition over the flat buffer, one lerp for each float buffer."""
        decay = self._steady if self.models and self._steady else self._next_decay()
        self.models += 1
        scale = self._scale * decay
        if scale < SMALLEST:
            self._sum.mul_(scale)
            scale = 1.0
        self._sum.add_(network.values, alpha=(1 - decay) / scale)
        self._scale = scale
        if network.buffers and self._lender is None:
            self._collect_buffers(network, 1 - decay)

    def _next_decay(self) -> float:
        collection_steps = self._phase.collection_steps
        return self._phase.decay_at(collection_steps.first + self.models * collection_steps.every)

    def _collect_buffers(self, network: Network, rate: float) -> None:
        for own, buffer in zip(self._network.buffers, network.buffers, strict=True):
            if own.is_floating_point():
                own.lerp_(buffer, rate)
            else:  # num_batches_tracked is a counter and is not averaged
                own.copy_(buffer)

    @property
    def ready(self) -> bool:
        """True once weights are collected."""
        return self.models > 0

    def manifest_details(self) -> dict[str, Any]:
        """The number of collections, and the decay per optimizer step."""
        return {"models": self.models, "decay": self._phase.decay}

    def averaged_network(self) -> Network:
        """The averaged network; its batch norm has averaged statistics, or those of the trained network."""
        torch.mul(self._sum, self._scale, out=self._network.values)
        if self._lender:
            copy_bn_stats(self._network, self._lender)
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """The sum (P,), its scale, float64 (), the number of collections, int64 (), and the averaged buffers."""
        scale = torch.tensor(self._scale, dtype=torch.float64)
        counted = torch.tensor(self.models)
        return {"ema.sum": self._sum, "ema.scale": scale, "ema.models": counted, **self._averaged_buffers()}

    def _averaged_buffers(self) -> dict[str, Tensor]:
        """The averaged buffers by name; none if the trained network's are used, which are in checkpoints already."""
        named = () if self._lender else self._network.module.named_buffers()
        return {f"ema.buffers.{name}": each for name, each in named}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self._sum.copy_(found["ema.sum"])
        self._scale = float(found["ema.scale"])
        for name, buffer in self._averaged_buffers().items():
            buffer.copy_(found[name])
        self.models = int(found["ema.models"])
