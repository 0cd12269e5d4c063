"""Loss and metrics of many weights of one network at once, equal to evaluating them one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from core.engine.analysis.chunk_sizes import Sizes, sizes_on
from core.engine.analysis.stacked_network import BatchNormMoments, StackedNetwork, stack_network
from core.engine.analysis.subject import AnalysisSubject, metric_names, preserving
from core.engine.datasets.split import Split, iterate_chunks
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.evaluation.evaluate import evaluate_network
from core.engine.evaluation.objective import Objective
from core.engine.failure import passing_examples
from core.engine.liveness import report_each
from core.engine.networks.network import Network
from core.recipe.analyses import SplitName


@dataclass(frozen=True, slots=True)
class WeightsEvaluator:
    """Computes the metrics `names` on every split for each vector of weights.

    Batch norm has the running statistics of the subject, or if `reestimate` those estimated for each weights on the
    train split.
    """

    subject: AnalysisSubject
    splits: tuple[SplitName, ...]
    names: tuple[str, ...]
    reestimate: bool
    stack: StackedNetwork | None
    sizes: Sizes

    @classmethod
    def for_subject(cls, subject: AnalysisSubject, splits: Sequence[SplitName], *, reestimate: bool) -> Self:
        """An evaluator for a subject; each of `splits` must have examples."""
        example, _ = subject.parts[splits[0]].chunk(0, 1)
        names, sizes = tuple(metric_names(subject)), sizes_on(subject.network.values.device)
        return cls(subject, tuple(splits), names, reestimate, stack_network(subject.network, example), sizes)

    def evaluate_weights(self, weights: Tensor) -> Tensor:
        """(K, P) -> float64 (K, splits, metrics): example-weighted means, independent of the sizes of chunks."""
        if self.stack is None:
            return one_by_one(self, weights)
        with torch.no_grad(), passing_examples():
            groups = torch.split(weights, self._weights_at_once(self.stack))
            return torch.cat([self._evaluate_group(self.stack, group) for group in groups])

    def own_metrics(self) -> Tensor:
        """The metrics of the subject's weights with their own running statistics: float64 (splits, metrics)."""
        return torch.stack([split_metrics(self, self.subject.network, split) for split in self.splits])

    def _columns_at_once(self, layers: StackedNetwork) -> int:
        return max(1, min(self.sizes.columns, self.sizes.numbers // layers.widest))

    def _weights_at_once(self, layers: StackedNetwork) -> int:
        """The number of weights in a group; statistics of batch norm are estimated on whole batches."""
        counts = self.reestimate and layers.norms
        columns = min(self.subject.batch, len(self.subject.parts["train"])) if counts else self._columns_at_once(layers)
        return max(1, self.sizes.numbers // (layers.widest * columns))

    def _evaluate_group(self, layers: StackedNetwork, weights: Tensor) -> Tensor:
        if self.reestimate and layers.norms:
            moments = layers.estimate_moments(weights, self.subject.parts["train"], self.subject.batch)
        else:
            moments = layers.running_moments()
        return torch.stack(
            [self._evaluate_split(layers, weights, moments, self.subject.parts[each]) for each in self.splits], 1
        )

    def _evaluate_split(
        self, layers: StackedNetwork, weights: Tensor, moments: BatchNormMoments, part: Split
    ) -> Tensor:
        """float64 (K, metrics)"""
        objective, passed = self.subject.objective, layers.bind_weights(weights, moments)
        sums: list[Tensor] = []
        for inputs, targets in iterate_chunks(part, self.subject.network.most_at_once):
            columns = torch.split(inputs, self._columns_at_once(layers))
            chunks = report_each(layers.report_alive, "evaluate", columns)
            outputs = torch.cat([passed(each) for each in chunks], 2).transpose(1, 2)  # (K, b, outputs)
            sums.append(tally_each(objective, outputs, targets))
        constants = objective.split_constants(part).expand(len(weights), -1)
        found = torch.cat([torch.stack(sums).sum(0), constants], 1)  # (K, k + m)
        rows = [objective.metrics_from_sums(each, part) for each in found.tolist()]
        return torch.tensor([[row[name] for name in self.names] for row in rows], dtype=torch.float64)


def tally_each(objective: Objective, outputs: Tensor, targets: Tensor) -> Tensor:
    """The sums of each network: outputs (K, b, outputs), targets (b, …) -> float64 (K, k).

    A CPU computes one network after the other, with the same bits as for a single network. A GPU computes all at once:
    K times about six kernel launches would take most of its time.
    """
    if outputs.device.type == "cpu":
        return torch.stack([objective.example_sums(each.contiguous(), targets) for each in outputs])
    return tally_together(objective, outputs, targets)


def tally_together(objective: Objective, outputs: Tensor, targets: Tensor) -> Tensor:
    """The sums of all networks in as many operations as those of one network."""
    together: Tensor = torch.vmap(objective.example_sums, in_dims=(0, None))(outputs.contiguous(), targets)
    return together


def one_by_one(judge: WeightsEvaluator, weights: Tensor, buffers: Sequence[Sequence[Tensor]] | None = None) -> Tensor:
    """The metrics of weights (K, P), computed by the network itself: float64 (K, splits, metrics).

    It works for all layers. Each vector of weights may have its own `buffers`. Weights and buffers of the network are
    restored.
    """
    found = []
    with preserving(judge.subject.network) as network:
        for number, values in enumerate(weights):
            network.values.copy_(values)
            for own, other in zip(network.buffers, buffers[number] if buffers else (), strict=False):
                own.copy_(other)
            if judge.reestimate and buffers is None:
                reestimate_batch_norm(network, judge.subject.parts["train"], judge.subject.batch)
            found.append(torch.stack([split_metrics(judge, network, split) for split in judge.splits]))
    return torch.stack(found)


def split_metrics(judge: WeightsEvaluator, network: Network, split: SplitName) -> Tensor:
    """The metrics of one split: float64 (metrics,)."""
    found = evaluate_network(network, judge.subject.parts[split], judge.subject.objective)
    return torch.tensor([found[name] for name in judge.names], dtype=torch.float64)
