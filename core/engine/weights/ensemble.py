"""Ensembles: networks kept from one training run, whose predictions are averaged (Huang et al. 2017)."""

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from core.engine.datasets.split import Split
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.evaluation.evaluate import predict_split
from core.engine.networks.network import Network
from core.recipe.averaging import CollectionSteps
from core.recipe.facts import Task


class Mixture(Protocol):
    """The prediction of an ensemble, accumulated member by member."""

    def add_member(self, outputs: Tensor) -> None:
        """Add the outputs of one more member (n, outputs)."""

    def mean_outputs(self) -> Tensor:
        """The outputs that give the mean prediction, float64 (n, outputs)."""


class MeanProbabilities:
    """The logarithm of the mean softmax: outputs whose softmax is the mean of the members'.

    Probabilities are averaged, not logits (Huang et al. 2017): then the ensemble's loss is never above the mean loss.
    """

    def __init__(self) -> None:
        self._total = torch.tensor(-math.inf, dtype=torch.float64)
        self._count = 0

    def add_member(self, outputs: Tensor) -> None:
        self._total = torch.logaddexp(self._total.to(outputs.device), torch.log_softmax(outputs.double(), 1))
        self._count += 1

    def mean_outputs(self) -> Tensor:
        return self._total - math.log(self._count)


class MeanOutputs:
    """The mean output of a regression."""

    def __init__(self) -> None:
        self._total = torch.zeros((), dtype=torch.float64)
        self._count = 0

    def add_member(self, outputs: Tensor) -> None:
        self._total = self._total.to(outputs.device) + outputs
        self._count += 1

    def mean_outputs(self) -> Tensor:
        return self._total / self._count


MIXTURES: dict[Task, type[MeanProbabilities | MeanOutputs]] = {
    "classification": MeanProbabilities,
    "regression": MeanOutputs,
}


class Ensemble:
    """Copies of weights and buffers of the last `size` networks that were collected."""

    prefix = "ensemble."

    def __init__(self, collection_steps: CollectionSteps, size: int, network: Network) -> None:
        """`network` is a second network of the same shape, into which members are loaded one by one."""
        self.collects = collection_steps.collects
        self._occasions = collection_steps
        self._network = network
        self._collected = 0  # collection steps so far, missed ones included
        self._missed = 0
        self._kept = {name: each.new_zeros(size, *each.shape) for name, each in self._member_tensors(network).items()}
        self._outputs: dict[int, Tensor] = {}

    @staticmethod
    def _member_tensors(network: Network) -> dict[str, Tensor]:
        buffers = {f"ensemble.buffers.{name}": each for name, each in network.module.named_buffers()}
        return {"ensemble.weights": network.weights.detach(), **buffers}

    @property
    def _most_members(self) -> int:
        return len(self._kept["ensemble.weights"])

    def begin_after(self, step: int) -> None:
        """Count the collection steps up to `step` as missed: the run that was branched from kept no members."""
        self._collected = self._missed = self._occasions.count_until(step)

    def collect(self, network: Network) -> None:
        """Keep a copy; it replaces the oldest member once there are `size`."""
        row = self._collected % self._most_members
        for kept, part in zip(self._kept.values(), self._member_tensors(network).values(), strict=True):
            kept[row] = part
        self._collected += 1

    @property
    def ready(self) -> bool:
        """True once it has a member."""
        return self._collected > self._missed

    @property
    def member_steps(self) -> range:
        """The completed steps of each member, oldest first."""
        first, every = self._occasions.first, self._occasions.every
        kept = range(max(self._missed, self._collected - self._most_members), self._collected)
        return range(first + kept.start * every, first + kept.stop * every, every)

    def member_networks(self) -> Iterator[Network]:
        """The members, oldest first, all loaded into the same network: use each before the next."""
        return map(self.member_network, self.member_steps)

    def member_network(self, step: int) -> Network:
        """The member of that step, loaded into the second network."""
        row = (step - self._occasions.first) // self._occasions.every % self._most_members
        with torch.no_grad():
            for own, kept in zip(self._member_tensors(self._network).values(), self._kept.values(), strict=True):
                own.copy_(kept[row])
        return self._network

    def average_weights(self, train: Split, batch_size: int) -> Network:
        """A network with the mean of the members' weights, as in SWA; its batch norm is estimated again."""
        mean = torch.zeros_like(self._network.weights)
        for number, network in enumerate(self.member_networks(), 1):
            mean.lerp_(network.weights.detach(), 1 / number)
        with torch.no_grad():
            self._network.weights.copy_(mean)
        reestimate_batch_norm(self._network, train, batch_size)
        return self._network

    def member_outputs(self, part: Split) -> list[Tensor]:
        """The outputs of each member for the validation split (n, outputs), oldest first; each is computed once."""
        known = self._outputs
        self._outputs = {
            step: known[step] if step in known else predict_split(self.member_network(step), part)
            for step in self.member_steps
        }
        return list(self._outputs.values())

    def tensors(self) -> dict[str, Tensor]:
        """A row per member, (size, P) and buffers, and the counts of collected and missed steps, int64 (2,)."""
        counts = torch.tensor((self._collected, self._missed))
        return {**self._kept, "ensemble.counts": counts}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The names and shapes of `tensors`; checkpoints from before forks have `ensemble.collected` as only count."""
        if "ensemble.collected" in found:
            return {**self._kept, "ensemble.collected": torch.tensor(self._collected)}
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        for name, kept in self._kept.items():
            kept.copy_(found[name])
        if "ensemble.collected" in found:
            self._collected, self._missed = int(found["ensemble.collected"]), 0
        else:
            self._collected, self._missed = found["ensemble.counts"].tolist()
        self._outputs = {}
