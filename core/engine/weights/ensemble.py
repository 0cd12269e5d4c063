"""Ensembles: networks kept as they were trained, whose predictions are averaged."""

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import torch
from torch import Tensor

from core.engine.datasets.resident import Split
from core.engine.evaluation.evaluate import predict_split, reestimate_batch_norm
from core.engine.networks.network import Network
from core.recipe.averaging import CollectionSteps
from core.recipe.facts import Task


class Mixture(Protocol):
    """What an ensemble predicts, from what its members do, one after the other."""

    def add_member(self, outputs: Tensor) -> None:
        """Take in the outputs of one more member (n, outputs)."""

    def mean_outputs(self) -> Tensor:
        """Outputs that stand for the mean prediction, float64 (n, outputs)."""


class MeanProbabilities:
    """The mean softmax, as its logarithm: outputs whose own softmax it is.

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
    """The last `size` networks that were collected, weights and buffers as they stood."""

    prefix = "ensemble."

    def __init__(self, occasions: CollectionSteps, size: int, network: Network) -> None:
        """`network` is a second network of the same shape, in which the members are looked at one by one."""
        self.collects = occasions.collects
        self._occasions = occasions
        self._network = network
        self._collected = 0  # occasions so far, those that were missed among them
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
        """Members up to that step are missing: the run was another one, which kept none."""
        self._collected = self._missed = self._occasions.count_until(step)

    def collect(self, network: Network) -> None:
        """Keep a copy; the oldest member makes room once there are too many."""
        row = self._collected % self._most_members
        for kept, part in zip(self._kept.values(), self._member_tensors(network).values(), strict=True):
            kept[row] = part
        self._collected += 1

    @property
    def ready(self) -> bool:
        """Once it has a member."""
        return self._collected > self._missed

    @property
    def member_steps(self) -> range:
        """Completed steps of each member, oldest first."""
        first, every = self._occasions.first, self._occasions.every
        kept = range(max(self._missed, self._collected - self._most_members), self._collected)
        return range(first + kept.start * every, first + kept.stop * every, every)

    def member_networks(self) -> Iterator[Network]:
        """The members, oldest first, in one and the same network: use each before the next."""
        return map(self.member_network, self.member_steps)

    def member_network(self, step: int) -> Network:
        """The member of that step."""
        row = (step - self._occasions.first) // self._occasions.every % self._most_members
        with torch.no_grad():
            for own, kept in zip(self._member_tensors(self._network).values(), self._kept.values(), strict=True):
                own.copy_(kept[row])
        return self._network

    def average_weights(self, train: Split, batch_size: int) -> Network:
        """The members' weights averaged instead of their predictions, batch norm estimated again: what SWA would do."""
        mean = torch.zeros_like(self._network.weights)
        for number, network in enumerate(self.member_networks(), 1):
            mean.lerp_(network.weights.detach(), 1 / number)
        with torch.no_grad():
            self._network.weights.copy_(mean)
        reestimate_batch_norm(self._network, train.inputs, batch_size)
        return self._network

    def member_outputs(self, part: Split) -> list[Tensor]:
        """What each member says of the validation part (n, outputs), oldest first; every member is asked once."""
        known = self._outputs
        self._outputs = {
            step: known[step] if step in known else predict_split(self.member_network(step), part)
            for step in self.member_steps
        }
        return list(self._outputs.values())

    def tensors(self) -> dict[str, Tensor]:
        """What a resume needs: a row for each member, and how many occasions there were and were missed."""
        counts = torch.tensor((self._collected, self._missed))
        return {**self._kept, "ensemble.counts": counts}

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """What `tensors` gives now; releases before forks counted the occasions alone, for they missed none."""
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
