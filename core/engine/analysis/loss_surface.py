"""The mean loss of a split as a function of the weights."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from core.engine.analysis.chunk_sizes import count_activations, sizes_on
from core.engine.datasets.split import Batch, Split, equal_sizes, iterate_chunks
from core.engine.evaluation.evaluate import eval_mode
from core.engine.evaluation.objective import Loss
from core.engine.failure import passing_examples
from core.engine.liveness import report_each
from core.engine.networks.layers import plain_layers
from core.engine.networks.network import Network
from core.engine.networks.norms import is_foldable

COPIES: Final = 8  # approximate copies of every activation in the graph of a second derivative


class LossSurface:
    """The loss that a job minimises, over a whole split in evaluation mode, without weight decay.

    Batch norm uses the running statistics at construction, dropout is off. The network is only read: weights are an
    argument. Chunks are weighted by their examples, so the result does not depend on their number. Attention uses the
    math backend: the fused kernels have no second derivative and no vmap rule.
    """

    def __init__(self, network: Network, part: Split, loss: Loss, room: int | None = None) -> None:
        """`loss` is the mean loss of a batch: outputs (b, outputs), targets -> (); `room` in bytes, or by device."""
        room = sizes_on(network.values.device).room if room is None else room
        self._module, self._loss = network.module, loss
        self.report_alive = network.report_alive
        self._cut = parameter_shapes(network)
        stack = plain_layers(network.module)
        self._layers = None if stack is None else list(fold_norms(stack))
        self._buffers = {name: each.clone() for name, each in network.module.named_buffers()}
        each = COPIES * count_activations(network, part.chunk(0, 1)[0]) * network.values.element_size()
        size = max(1, min(network.most_at_once, room // max(each, 1)))
        self._part, self.chunk_sizes = part, equal_sizes(len(part), size)
        self.fits = each * len(part) <= room
        self.examples = len(part)

    def loss_at(self, weights: Tensor) -> float:
        """The mean loss at weights (P,)."""
        with eval_mode(self._module), passing_examples():
            chunks = report_each(self.report_alive, "evaluate", self._chunks())
            return sum_in_double([self._chunk_share(*chunk, weights) for chunk in chunks])

    def chunk_gradients(self, weights: Tensor, *, twice: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """The share of each chunk in the mean loss () and in its gradient (P,); `weights` (P,) must require a gradient.

        With `twice` the gradients can be differentiated again.
        """
        for chunk in report_each(self.report_alive, "gradient", self._chunks()):
            with eval_mode(self._module), passing_examples(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
                loss = self._chunk_share(*chunk, weights)
                (slope,) = torch.autograd.grad(loss, weights, create_graph=twice, materialize_grads=True)
            yield loss.detach(), slope

    def batch_gradients(self, weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        """The gradients (k, P) at weights (P,) of the mean losses of k batches (k, b, …), as one piece of work."""
        self.report_alive("gradient")
        with eval_mode(self._module), passing_examples(), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            gradients: Tensor = vmap(grad(self._mean_loss), in_dims=(None, 0, 0))(weights.detach(), inputs, targets)
        return gradients

    def _mean_loss(self, weights: Tensor, inputs: Tensor, targets: Tensor) -> Tensor:
        cut = torch.split(weights, [shape.numel() for shape in self._cut.values()])
        named = {name: each.view(shape) for (name, shape), each in zip(self._cut.items(), cut, strict=True)}
        if self._layers is None:
            return self._loss(functional_call(self._module, named | self._buffers, (inputs,)), targets)
        for name, layer, norm in self._layers:
            own = {inner: named[f"{name}.{inner}"] for inner, _ in layer.named_parameters()}
            if norm:
                own = norm.fuse_into(own, named)
            own |= {inner: self._buffers[f"{name}.{inner}"] for inner, _ in layer.named_buffers()}
            inputs = functional_call(layer, own, (inputs,)) if own else layer(inputs)
        return self._loss(inputs, targets)

    def _chunks(self) -> Iterator[Batch]:
        return iterate_chunks(self._part, self.chunk_sizes)

    def _chunk_share(self, inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return self._mean_loss(weights, inputs, targets) * (len(inputs) / self.examples)

    def loss_and_gradient(self, weights: Tensor) -> tuple[float, Tensor]:
        """The mean loss at weights (P,), and its gradient (P,)."""
        losses, total = list[Tensor](), torch.zeros_like(weights)
        for loss, share in self.chunk_gradients(weights.clone().requires_grad_()):
            losses.append(loss)
            total += share
        return sum_in_double(losses), total


def sum_in_double(numbers: Sequence[Tensor]) -> float:
    """The sum of scalars, added one by one in double; one transfer from the device."""
    total = 0.0
    for each in torch.stack(list(numbers)).tolist() if numbers else ():
        total += each
    return total


@dataclass(frozen=True, slots=True)
class FusedBatchNorm:
    """A batch norm that is folded into the linear layer before it, in evaluation mode.

    g (W x + b - mean) / √(var + eps) + h = (s W) x + s (b - mean) + h with s = g / √(var + eps). Unfolded, its second
    derivatives cost as much as all the rest together. `mean` and `deviation` are (channels,).
    """

    name: str
    mean: Tensor
    deviation: Tensor

    def fuse_into(self, linear: dict[str, Tensor], named: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weight and bias of the fused layer, from those of the `linear` layer and the network's parameters by name."""
        weight, bias = linear["weight"], linear["bias"]
        scale = named[f"{self.name}.weight"] / self.deviation
        shift = scale * (bias - self.mean) + named[f"{self.name}.bias"]
        return {"weight": weight * scale.view(-1, *[1] * (weight.ndim - 1)), "bias": shift}


def fold_norms(named: Sequence[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module, FusedBatchNorm | None]]:
    """Every layer with its name and the batch norm folded into it, with the present running statistics."""
    absorbed = ""
    for (name, layer), (follower, norm) in pairwise([*named, ("", nn.Identity())]):
        if name == absorbed:
            continue
        linear = type(layer) in {nn.Linear, nn.Conv2d} and getattr(layer, "bias", None) is not None
        if linear and is_foldable(norm):
            absorbed, statistics = follower, dict(norm.named_buffers())
            deviation = torch.sqrt(statistics["running_var"] + norm.eps)
            yield name, layer, FusedBatchNorm(follower, statistics["running_mean"].clone(), deviation)
        else:
            yield name, layer, None


def parameter_shapes(network: Network) -> dict[str, torch.Size]:
    """Names and shapes of the parameters, in their order in the flat weights."""
    named = sorted(network.module.named_parameters(), key=lambda pair: pair[1].storage_offset())
    return {name: each.shape for name, each in named}
