"""Evaluation of networks without side effects: random state, buffers and modes are the same afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from core.engine.datasets.resident import Split
from core.engine.evaluation.objective import Objective
from core.engine.failure import passing_examples
from core.engine.liveness import report_each
from core.engine.networks.network import Network
from core.engine.networks.norms import running_norms


def evaluate_network(network: Network, part: Split, objective: Objective) -> dict[str, float]:
    """Loss and metrics over a split, as means over its examples. One transfer from the device."""
    return compute_metrics(predict_split(network, part), part, objective)


def predict_split(network: Network, part: Split) -> Tensor:
    """The outputs for a split (n, outputs), in evaluation mode."""
    with eval_mode(network.module):
        chunks = report_each(network.report_alive, "evaluate", torch.split(part.inputs, network.most_at_once))
        with passing_examples():
            outputs = [network.forward(inputs) for inputs in chunks]
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


def reestimate_batch_norm(network: Network, inputs: Tensor, batch_size: int) -> None:
    """Set running statistics to the example-weighted mean over the batches of `inputs`, taken in index order.

    Averaged weights have no statistics of their own, because they were never run on data (Izmailov et al. 2018, section
    3.2). A batch of b examples after n others has momentum b / (n + b). Dropout is off.
    """
    layers = running_norms(network.module)
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    try:
        with eval_mode(network.module):
            for layer in layers:
                layer.train()
                layer.reset_running_stats()
            seen = 0
            batches = torch.split(inputs, chunk_sizes(len(inputs), batch_size))
            for batch in report_each(network.report_alive, "batch_norm", batches):
                for layer in layers:
                    layer.momentum = len(batch) / (seen + len(batch))
                with passing_examples():
                    network.forward(batch)
                seen += len(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def chunk_sizes(examples: int, size: int) -> list[int]:
    """Batches of `size` and the remainder; a single last example, which has no variance, joins the batch before it."""
    whole, rest = divmod(examples, size)
    sizes = [size] * whole + ([rest] if rest else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes
