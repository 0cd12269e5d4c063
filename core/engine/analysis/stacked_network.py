"""Many networks of one shape at once: each layer takes a stack of flat weights (K, P), examples are the last axis.

With examples last, pooling compares whole rows, and the output of a product has the memory layout that the next layer
needs. Inputs that all networks share have 1 in place of K: the first layer is then a single product.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, takewhile
from typing import ClassVar, Final, Protocol, TypeGuard

import torch
from torch import Tensor, nn

from core.engine.analysis.matrix_products import ProductMethod, ScratchMemory, choose_product
from core.engine.datasets.split import Split, iterate_chunks
from core.engine.evaluation.batch_norm import chunk_sizes
from core.engine.evaluation.evaluate import eval_mode
from core.engine.liveness import ReportAlive, report_each
from core.engine.networks.layers import plain_layers
from core.engine.networks.network import Network
from core.engine.networks.norms import FoldableNorm, is_foldable

RISING: Final = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_, nn.Sigmoid: torch.sigmoid_}
ACTIVATIONS: Final = (*RISING, nn.LeakyReLU, nn.GELU, nn.SiLU)


@dataclass(slots=True)
class BatchNormMoments:
    """Mean and variance of each batch norm, (K | 1, channels).

    While `counting`, they are those of the present batch, and their example-weighted sums are kept.
    """

    means: list[Tensor]
    variances: list[Tensor]
    counting: bool = False
    sums: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def count_batch(self, number: int, batch: Tensor, bias: Tensor | float) -> None:
        """Record the output of a layer (K, channels, …, n) without its bias (K, channels), which is added here."""
        values, examples = batch.flatten(2), batch.shape[-1]
        self.means[number] = values.mean(2) + bias
        self.variances[number] = values.var(2, correction=0)
        unbiased = self.variances[number] * (values.shape[2] / (values.shape[2] - 1))
        mean, variance = self.sums.get(number, (0.0, 0.0))
        self.sums[number] = mean + examples * self.means[number], variance + examples * unbiased


Pass = Callable[[Tensor], Tensor]
"""Examples (K | 1, *shape, n) -> (K, *shape, n)."""


class StackedLayer(Protocol):
    """One layer of all the networks."""

    @property
    def rising(self) -> bool:
        """Whether it is elementwise and monotone, so that max pooling can run before it."""

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        """The layer as a function of examples, with weights (K, P) prepared once."""


@dataclass(frozen=True, slots=True)
class StackedBatchNorm:
    """The batch norm after a layer: its number, the slices of its scale and shift, and that of the layer's bias."""

    number: int
    gamma: slice
    beta: slice
    eps: float
    bias: slice | None

    def folded_scale(self, weights: Tensor, moments: BatchNormMoments) -> Tensor:
        """The factor on the outputs of the layer: (K, channels)."""
        return weights[:, self.gamma] * (moments.variances[self.number] + self.eps).rsqrt()

    def folded_shift(self, weights: Tensor, moments: BatchNormMoments) -> Tensor:
        """The shift of the scaled outputs of the layer, which lack its bias: (K, channels)."""
        mean = moments.means[self.number] - self.layer_bias(weights)
        return weights[:, self.beta] - mean * self.folded_scale(weights, moments)

    def layer_bias(self, weights: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else weights[:, self.bias]


@dataclass(frozen=True, slots=True)
class StackedProduct:
    """A linear layer or a convolution without bias; the scale of a batch norm after it is folded into the weights."""

    weight: slice
    outputs: int
    way: ProductMethod
    norm: StackedBatchNorm | None
    rising: ClassVar[bool] = False

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        norm, matrices = self.norm, weights[:, self.weight].reshape(len(weights), self.outputs, -1)  # (K, out, in)
        if norm is None or not moments.counting:
            scale = 1.0 if norm is None else norm.folded_scale(weights, moments)[:, :, None]
            return partial(self.way.multiply_prepared, self.way.prepare_matrices(matrices * scale))
        prepared = self.way.prepare_matrices(matrices)

        def counted(inputs: Tensor) -> Tensor:
            outputs = self.way.multiply_prepared(prepared, inputs)
            moments.count_batch(norm.number, outputs, norm.layer_bias(weights))
            return outputs.mul_(broadcast_channels(norm.folded_scale(weights, moments), outputs))

        return counted


@dataclass(frozen=True, slots=True)
class StackedShift:
    """The shift after the product of a linear layer or a convolution: its bias, or that of its batch norm."""

    by: slice | StackedBatchNorm
    rising: ClassVar[bool] = True

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        def now() -> Tensor:
            return (
                self.by.folded_shift(weights, moments)
                if isinstance(self.by, StackedBatchNorm)
                else weights[:, self.by].contiguous()
            )

        fixed = None if moments.counting else now()

        def shifted(inputs: Tensor) -> Tensor:
            return inputs.add_(broadcast_channels(now() if fixed is None else fixed, inputs))

        return shifted


@dataclass(frozen=True, slots=True)
class StackedActivation:
    """An elementwise activation."""

    module: nn.Module

    @property
    def rising(self) -> bool:
        return type(self.module) in RISING

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        """In place if torch has such a function: the input is scratch memory of the layer before."""
        return RISING.get(type(self.module), self.module)


@dataclass(frozen=True, slots=True)
class StackedMaxPool:
    """Max pooling of 2 by 2: (K, channels, h, w, n) -> (K, channels, h // 2, w // 2, n), rows first in memory."""

    room: ScratchMemory = field(default_factory=ScratchMemory)
    rising: ClassVar[bool] = False

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        return self.max_pool

    def max_pool(self, inputs: Tensor) -> Tensor:
        many, channels, height, width, examples = inputs.shape
        height, width = height // 2, width // 2
        upper, lower = inputs[:, :, 0 : 2 * height : 2, : 2 * width], inputs[:, :, 1 : 2 * height : 2, : 2 * width]
        rows = self.room.take_tensor("rows", inputs, many, height, channels, 2 * width, examples).transpose(1, 2)
        torch.maximum(upper, lower, out=rows)
        found = self.room.take_tensor("outputs", inputs, many, height, channels, width, examples).transpose(1, 2)
        return torch.maximum(rows[:, :, :, 0::2], rows[:, :, :, 1::2], out=found)


@dataclass(frozen=True, slots=True)
class StackedFlatten:
    """(K, *shape, n) -> (K, numbers, n)"""

    rising: ClassVar[bool] = False

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        return lambda inputs: inputs.flatten(1, -2)


def broadcast_channels(values: Tensor, outputs: Tensor) -> Tensor:
    """A view of values (K, channels) that broadcasts over outputs (K, channels, …)."""
    return values.reshape(*values.shape, *(1 for _ in outputs.shape[2:]))


@dataclass(frozen=True, slots=True)
class StackedNetwork:
    """The layers of a network; `widest` is the most numbers of one example in a layer, `norms` are its batch norms."""

    layers: tuple[StackedLayer, ...]
    widest: int
    norms: tuple[FoldableNorm, ...]
    report_alive: ReportAlive

    def bind_weights(self, weights: Tensor, moments: BatchNormMoments) -> Pass:
        """The networks with weights (K, P) as a function: (n, *shape) -> (K, outputs, n)."""
        passes = [layer.bind_weights(weights, moments) for layer in self.layers]

        def outputs(inputs: Tensor) -> Tensor:
            values = inputs.movedim(0, -1).contiguous()[None]
            for each in passes:
                values = each(values)
            return values.clone()

        return outputs

    def running_moments(self) -> BatchNormMoments:
        """The present running statistics of the network, (1, channels) each."""
        running = [(each.running_mean, each.running_var) for each in self.norms]
        means = [mean[None] for mean, _ in running if mean is not None]
        return BatchNormMoments(means, [variance[None] for _, variance in running if variance is not None])

    def estimate_moments(self, weights: Tensor, train: Split, batch_size: int) -> BatchNormMoments:
        """For each network the running statistics that `reestimate_batch_norm` would set, (K, channels) each."""
        counting = self.running_moments()
        counting.counting = True
        outputs = self.bind_weights(weights, counting)
        batches = iterate_chunks(train, chunk_sizes(len(train), batch_size), augmented=True)
        for batch, _ in report_each(self.report_alive, "batch_norm", batches):
            outputs(batch)
        found = [counting.sums[number] for number in range(len(self.norms))]
        return BatchNormMoments(
            [mean / len(train) for mean, _ in found], [variance / len(train) for _, variance in found]
        )


def stack_network(network: Network, example: Tensor) -> StackedNetwork | None:
    """The network's layers over many weights, or None if a layer is not supported. `example` (1, *shape)."""
    layers = plain_layers(network.module)
    if layers is None:
        return None
    steps: list[StackedLayer] = []
    norms: list[FoldableNorm] = []
    before: nn.Module | None = None
    widest, widths = _layer_sizes(network, [layer for _, layer in layers], example)
    modules = [layer for _, layer in layers if type(layer) is not nn.Dropout]
    for module, after in pairwise((*modules, nn.Identity())):
        shared = not any(isinstance(step, StackedProduct) for step in steps)
        if _is_product(module):
            norm = _stacked_batch_norm(module, after, len(norms)) if is_foldable(after) else None
            steps += _product_layers(module, norm, widths[module], shared=shared)
        elif is_foldable(module) and before is not None and _is_product(before):
            norms.append(module)
        elif type(module) in ACTIVATIONS and not shared:
            steps.append(StackedActivation(module))
        elif type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            steps.append(StackedFlatten())
        elif type(module) is nn.MaxPool2d and _is_halving_pool(module):
            steps.insert(_pool_position(steps), StackedMaxPool())
        else:
            return None
        before = module
    return StackedNetwork(tuple(steps), widest, tuple(norms), network.report_alive)


def _is_product(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Whether it is a linear layer, or a convolution with an odd square kernel that keeps the size of the picture."""
    if type(module) is nn.Linear:
        return True
    if type(module) is not nn.Conv2d:
        return False
    plain = (module.stride, module.dilation, module.groups, module.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
    height, width = module.kernel_size
    return plain and height == width and height % 2 == 1 and module.padding == (height // 2, width // 2)


def _is_halving_pool(module: nn.MaxPool2d) -> bool:
    sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
    return sizes == (2, 2, 0, 1) and not module.ceil_mode


def _flat_slice(parameter: Tensor) -> slice:
    """The slice of a parameter in the flat weights (P,)."""
    start = int(parameter.storage_offset())
    return slice(start, start + parameter.numel())


def _stacked_batch_norm(module: nn.Linear | nn.Conv2d, norm: FoldableNorm, number: int) -> StackedBatchNorm:
    bias = None if module.bias is None else _flat_slice(module.bias)
    return StackedBatchNorm(number, _flat_slice(norm.weight), _flat_slice(norm.bias), norm.eps, bias)


def _product_layers(
    module: nn.Linear | nn.Conv2d, norm: StackedBatchNorm | None, width: int, *, shared: bool
) -> Iterator[StackedLayer]:
    way = choose_product(module.weight.shape, width, shared=shared)
    yield StackedProduct(_flat_slice(module.weight), len(module.weight), way, norm)
    if norm:
        yield StackedShift(norm)
    elif module.bias is not None:
        yield StackedShift(_flat_slice(module.bias))


def _pool_position(steps: Sequence[StackedLayer]) -> int:
    """The position where max pooling is cheapest: before all monotone elementwise layers at the end of `steps`."""
    return len(steps) - len(list(takewhile(lambda step: step.rising, reversed(steps))))


def _layer_sizes(network: Network, layers: Sequence[nn.Module], example: Tensor) -> tuple[int, dict[nn.Module, int]]:
    """The most numbers of an example that any layer holds, and the width of each layer's input."""
    widest, widths, values = 1, {}, example
    with eval_mode(network.module):
        for module in layers:
            seen = module.kernel_size[0] ** 2 if type(module) is nn.Conv2d else 1
            widest, widths[module] = max(widest, values.numel() * seen), values.shape[-1]
            values = module(values)
    return max(widest, values.numel()), widths
