"""Evaluation of networks without side effects: random state, buffers and modes are the same afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.engine.datasets.split import Split, iterate_chunks
from core.engine.evaluation.objective import Objective
from core.engine.failure import passing_examples
from core.engine.liveness import report_each
from core.engine.networks.network import Network


def evaluate_network(network: Network, part: Split, objective: Objective) -> dict[str, float]:
    """Loss and metrics over a split, as means over its examples. One transfer from the device."""
    return compute_metrics(predict_split(network, part), part, objective)


def predict_split(network: Network, part: Split) -> Tensor:
    """The outputs for a split (n, outputs), in evaluation mode."""
    with eval_mode(network.module):
        chunks = report_each(network.report_alive, "evaluate", iterate_chunks(part, network.most_at_once))
        with passing_examples():
            outputs = [network.forward(inputs) for inputs, _ in chunks]
        return torch.cat(outputs)


def compute_metrics(outputs: Tensor, part: Split, objective: Objective) -> dict[str, float]:
    """Loss and metrics of outputs (n, outputs) for a split, as means over its examples."""
    with torch.no_grad():
        sums = torch.cat([objective.example_sums(outputs, part.targets), objective.split_constants(part)])
        return objective.metrics_from_sums(sums.tolist(), part)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode of every layer is restored, also after an exception."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, training in modes:
            layer.training = training
