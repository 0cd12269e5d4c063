"""Averaged weights: what every average can do, and the one place where they are made."""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import torch
from torch import Tensor

from core.engine.checkpoints.stateful import Stateful
from core.engine.datasets.resident import Split
from core.engine.evaluation.evaluate import reestimate_batch_norm
from core.engine.networks.network import Network
from core.recipe.averaging import CollectionSteps, EmaPhase


class Collector(Stateful, Protocol):
    """Takes in weights that the trained network visits. The trained one is never touched."""

    def collects(self, completed: int) -> bool:
        """Whether the weights after `completed` optimizer steps come in."""

    def collect(self, network: Network) -> None:
        """Take the weights in as they stand."""

    @property
    def ready(self) -> bool:
        """Whether there is something to judge yet."""


class WeightAverage(Collector, Protocol):
    """A network of its own, made from what was collected."""

    def averaged_network(self) -> Network:
        """What is judged and saved, its batch norm in order."""

    def manifest_details(self) -> dict[str, Any]:
        """What its checkpoint's manifest says besides the metrics."""


class RunningMean:
    """Stochastic weight averaging: the mean of the weights collected so far.

    Their sum is kept: an addition costs half of what moving a mean does, and rounds no more. After n models the error
    is of the order √n ε of the mean either way, as each addition rounds relative to what is there by then.
    """

    prefix = "swa."

    def __init__(
        self, occasions: CollectionSteps, network: Network, train: Split, batch_size: int, lender: Network | None = None
    ) -> None:
        """`network` is a second network of the same shape; its weights become the mean.

        With a `lender`, the trained network, the mean borrows that one's running statistics as they stand.
        """
        self.collects = occasions.collects
        self.models = 0
        self._sum = torch.zeros_like(network.values)  # (P,)
        self._network = network
        self._train = train
        self._batch_size = batch_size
        self._lender = lender
        self._normalised = 0

    def collect(self, network: Network) -> None:
        """Sum <- sum + weights: one addition over the flat buffer."""
        self.models += 1
        self._sum.add_(network.values)

    def mean_weights(self) -> Tensor:
        """The averaged weights (P,)."""
        return self._sum / self.models

    @property
    def ready(self) -> bool:
        """Once a model is in it."""
        return self.models > 0

    def manifest_details(self) -> dict[str, Any]:
        """How many models it is the mean of."""
        return {"models": self.models}

    def averaged_network(self) -> Network:
        """The averaged network, its batch norm estimated again on the train part if models came in since."""
        if self._normalised != self.models:
            self._network.values.copy_(self.mean_weights())
            if self._lender is None:
                reestimate_batch_norm(self._network, self._train.inputs, self._batch_size)
            self._normalised = self.models
        if self._lender:
            copy_bn_stats(self._network, self._lender)
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: the sum (P,) and how many models are in it."""
        return {"swa.sum": self._sum, "swa.models": torch.tensor(self.models)}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        self._sum.copy_(found["swa.sum"])
        self.models = int(found["swa.models"])
        self._normalised = 0


def copy_bn_stats(network: Network, lender: Network) -> None:
    """Copy all that is no weight: what an average has that nobody gave statistics of its own."""
    for own, buffer in zip(network.buffers, lender.buffers, strict=True):
        own.copy_(buffer)


SMALLEST: Final = 2.0**-20


class ExponentialMean:
    """EMA of weights and of batch norm's statistics; it begins as a copy of the first weights that come in.

    The average is kept as `scale` times a sum, so that decaying all of it is one multiplication of numbers, and taking
    weights in one addition over the buffer. Before `scale` becomes tiny it is multiplied in.
    """

    prefix = "ema."

    def __init__(self, phase: EmaPhase, network: Network, lender: Network | None = None) -> None:
        """`network` is a second network of the same shape; its weights become the average.

        With a `lender`, the trained network, the average borrows that one's running statistics as they stand.
        """
        self.collects = phase.occasions.collects
        self.models = 0
        self._phase = phase
        self._lender = lender
        # What each but the first decays by, worked out once: a small step has no microsecond to lose.
        self._steady = None if phase.warmup else phase.decay_at(phase.occasions.first + phase.occasions.every)
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
        occasions = self._phase.occasions
        return self._phase.decay_at(occasions.first + self.models * occasions.every)

    def _collect_buffers(self, network: Network, rate: float) -> None:
        for own, buffer in zip(self._network.buffers, network.buffers, strict=True):
            if own.is_floating_point():
                own.lerp_(buffer, rate)
            else:  # what counts batches has no average
                own.copy_(buffer)

    @property
    def ready(self) -> bool:
        """Once it has begun."""
        return self.models > 0

    def manifest_details(self) -> dict[str, Any]:
        """How often weights came in, and the decay for each optimizer step."""
        return {"models": self.models, "decay": self._phase.decay}

    def averaged_network(self) -> Network:
        """The averaged network; its batch norm has the averaged statistics, unless they are borrowed."""
        torch.mul(self._sum, self._scale, out=self._network.values)
        if self._lender:
            copy_bn_stats(self._network, self._lender)
        return self._network

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: the sum (P,) and its scale, averaged buffers, and how often weights came in."""
        scale = torch.tensor(self._scale, dtype=torch.float64)
        counted = torch.tensor(self.models)
        return {"ema.sum": self._sum, "ema.scale": scale, "ema.models": counted, **self._averaged_buffers()}

    def _averaged_buffers(self) -> dict[str, Tensor]:
        """None where they are borrowed: the trained network's are kept as its own."""
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
