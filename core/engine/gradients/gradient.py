"""Loss and gradient of one batch, with gradient accumulation over chunks."""

import sys

import torch
from torch import Tensor

from core.engine.evaluation.measure import Loss
from core.engine.failure import note_pass
from core.engine.gradients.closed_form import Gradient, closed_form
from core.engine.networks.network import Network
from core.engine.networks.norms import mixes_batch


def build_gradient(network: Network, mean_loss: Loss, micro: int | None = None) -> Gradient:
    """(inputs, targets) -> mean loss of the batch, (); its gradient is then in `network.weights.grad` (P,).

    A batch of more than `network.most_at_once` examples is accumulated over chunks, each weighted by its share of the
    examples, so the gradient is that of the whole batch. A network with batch norm gets the batch as a whole, because a
    chunk has other statistics, unless the job has micro-batches of `micro` examples.
    """
    at_once, report_alive = (
        closed_form(network.module, mean_loss) or autograd_gradient(network, mean_loss),
        network.report_alive,
    )
    most = None if mixes_batch(network.module) else network.most_at_once
    size = min(each for each in (most, micro, sys.maxsize) if each is not None)

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        if len(inputs) <= size:
            report_alive("step")
            return at_once(inputs, targets)
        chunks = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
        loss, total = torch.zeros((), dtype=inputs.dtype, device=inputs.device), torch.zeros_like(network.weights)
        for some_inputs, some_targets in chunks:
            report_alive("step")
            share = len(some_inputs) / len(inputs)
            loss += at_once(some_inputs, some_targets) * share
            total.add_(network.gradient, alpha=share)
        network.gradient.copy_(total)
        return loss

    return gradient


def autograd_gradient(network: Network, mean_loss: Loss) -> Gradient:
    """The gradient of any network, by autograd."""
    forward, total = network.forward, network.gradient

    def gradient(inputs: Tensor, targets: Tensor) -> Tensor:
        total.zero_()
        try:
            loss = mean_loss(forward(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
        except (MemoryError, RuntimeError) as error:
            note_pass(error)
            raise
        return loss.detach()

    return gradient
