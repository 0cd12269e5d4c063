"""The subject of an analysis: a network with its weights, and the data that it was trained and evaluated on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.checkpoints.files import check_tensors, read_tensors
from core.engine.datasets.load import load_dataset
from core.engine.datasets.loaded import FITTED, LoadedDataset
from core.engine.datasets.split import Split
from core.engine.determinism import seeded_generator
from core.engine.evaluation.batch_norm import reestimate_batch_norm
from core.engine.evaluation.evaluate import evaluate_network
from core.engine.evaluation.objective import Objective, build_objective
from core.engine.liveness import ReportAlive
from core.engine.networks.network import Network, build_network
from core.recipe.analyses import SplitName
from core.recipe.assignment import Source
from core.recipe.plan import MOST_AT_ONCE, ExecutionPlan
from core.recipe.spec import JobSpec


@dataclass(frozen=True, slots=True)
class AnalysisSubject:
    """One network in evaluation mode. `parts` are its splits, empty ones included; `source` is the weights' origin.

    No other subject uses this network, but an analysis still restores its weights.
    """

    source: Source
    spec: JobSpec
    network: Network
    parts: dict[SplitName, Split]
    objective: Objective

    @property
    def batch(self) -> int:
        """The number of examples in a batch of its job."""
        return self.spec.shape().batch

    @property
    def label(self) -> str:
        """Its name in captions."""
        return self.source.label


def open_subjects(
    sources: Sequence[Source],
    plan: ExecutionPlan,
    device: torch.device,
    examples: int | None,
    report_alive: ReportAlive,
) -> tuple[AnalysisSubject, ...]:
    """Open all subjects; equal data are loaded once. Raises EngineError if weights or data do not fit their spec."""
    loaded: dict[str, LoadedDataset[Split]] = {}
    found = []
    for source in sources:
        spec = source.spec.resolved()
        key = spec.data.model_dump_json()
        if key not in loaded:
            loaded[key] = load_dataset(spec.data, source.dataset, device, plan, report_alive)
        network = build_network(
            spec.model,
            spec.data.facts(),
            spec.seed,
            device,
            most_at_once=plan.micro_batch or MOST_AT_ONCE,
            report_alive=report_alive,
        )
        found.append(_open_subject(source, spec, loaded[key], network, examples))
    return tuple(found)


def _open_subject(
    source: Source, spec: JobSpec, data: LoadedDataset[Split], network: Network, examples: int | None
) -> AnalysisSubject:
    if source.weights:
        tensors = {name: each for name, each in read_tensors(source.weights).items() if not name.startswith(FITTED)}
        check_tensors("weights", tensors, network.tensors())
        network.load_tensors(tensors)
    network.module.eval()
    parts: dict[SplitName, Split] = {
        "train": sample_examples(data.train, examples, spec.data.split_seed),
        "val": sample_examples(data.validation, examples, spec.data.split_seed),
        "test": sample_examples(data.test, examples, spec.data.split_seed),
    }
    return AnalysisSubject(source, spec, network, parts, build_objective(spec, data.target_scale))


def sample_examples(part: Split, examples: int | None, seed: int) -> Split:
    """`examples` of a split, drawn by the seed, in their order; all of them if it has no more."""
    if examples is None or examples >= len(part):
        return part
    chosen = torch.randperm(len(part), generator=seeded_generator(seed, "some"))[:examples].sort().values
    return part.select(chosen)


def nonempty_splits(subject: AnalysisSubject) -> list[SplitName]:
    """The splits that have examples."""
    return [split for split, part in subject.parts.items() if len(part)]


def metric_names(subject: AnalysisSubject) -> list[str]:
    """The names of the reported metrics: the loss first, then the metrics of the job."""
    split = nonempty_splits(subject)[0]
    few = subject.parts[split].select(torch.tensor([0]))
    return list(evaluate_network(subject.network, few, subject.objective))


@contextmanager
def preserving(network: Network) -> Iterator[Network]:
    """Restore weights and buffers at the exit, bit for bit, also after an exception."""
    before = network.values.clone(), [each.clone() for each in network.buffers]
    try:
        yield network
    finally:
        network.values.copy_(before[0])
        for own, was in zip(network.buffers, before[1], strict=True):
            own.copy_(was)


@contextmanager
def replaced_weights(subject: AnalysisSubject, weights: Tensor) -> Iterator[Network]:
    """The subject's network with other weights (P,), batch norm estimated again on the train split; then restored."""
    with preserving(subject.network) as network:
        network.values.copy_(weights)
        reestimate_batch_norm(network, subject.parts["train"], subject.batch)
        yield network
