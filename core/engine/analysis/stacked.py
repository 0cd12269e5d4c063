"""Networks of one shape, many at once: each layer takes a stack of flat weights (K, P), the examples stand last.

With the examples last a convolution is one copy and one product, pooling compares whole rows, and the result lies as
the next layer wants it. What all the networks see alike has 1 in place of K: the first layer is then a single product.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise, takewhile
from typing import ClassVar, Final, TypeGuard

import torch
from torch import Tensor, nn

from core.engine.evaluate import chunk_sizes, inspecting
from core.engine.networks.network import Network

RISING: Final = {nn.ReLU: torch.relu_, nn.Tanh: torch.tanh_, nn.Sigmoid: torch.sigmoid_}
ACTIVATIONS: Final = (*RISING, nn.LeakyReLU, nn.GELU, nn.SiLU)


@dataclass(slots=True)
class Moments:
    """Mean and variance of each batch norm, (K | 1, channels).

    While `counting` they are those of the batch that passes, and their example-weighted sums are kept.
    """

    means: list[Tensor]
    variances: list[Tensor]
    counting: bool = False
    sums: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def count(self, number: int, batch: Tensor, bias: Tensor | float) -> None:
        """Take in what a layer gives (K, channels, …, n), its bias (K, channels) still to come."""
        values, examples = batch.flatten(2), batch.shape[-1]
        self.means[number] = values.mean(2) + bias
        self.variances[number] = values.var(2, correction=0)
        unbiased = self.variances[number] * (values.shape[2] / (values.shape[2] - 1))
        mean, variance = self.sums.get(number, (0.0, 0.0))
        self.sums[number] = mean + examples * self.means[number], variance + examples * unbiased


Layer = Callable[[Tensor, Tensor, Moments], Tensor]
"""weights (K, P), examples (K | 1, *shape, n), moments -> (K, *shape, n)"""


class Room:
    """Memory that a layer writes to again and again: fresh pages would cost as much as the copies made there."""

    def __init__(self) -> None:
        self._taken: dict[str, Tensor] = {}

    def take(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """Some tensor of that shape; what it held under the same name is gone."""
        size = math.prod(shape)
        if name not in self._taken or len(self._taken[name]) < size:
            self._taken[name] = like.new_empty(size)
        return self._taken[name][:size].view(shape)


@dataclass(frozen=True, slots=True)
class Norm:
    """The batch norm behind a layer: its number, where its scale and shift stand, and the bias of the layer."""

    number: int
    gamma: slice
    beta: slice
    eps: float
    bias: slice | None

    def scale(self, weights: Tensor, moments: Moments) -> Tensor:
        """(K, channels)"""
        return weights[:, self.gamma] * (moments.variances[self.number] + self.eps).rsqrt()

    def shift(self, weights: Tensor, moments: Moments) -> Tensor:
        """What is added to the scaled outputs of the layer, which lack its bias: (K, channels)."""
        mean = moments.means[self.number] - self.layer_bias(weights)
        return weights[:, self.beta] - mean * self.scale(weights, moments)

    def layer_bias(self, weights: Tensor) -> Tensor | float:
        return 0.0 if self.bias is None else weights[:, self.bias]


@dataclass(frozen=True, slots=True)
class Product:
    """A linear layer or a convolution, and batch norm's scale, which goes into the weights; nothing is added yet."""

    weight: slice
    shape: torch.Size
    norm: Norm | None
    room: Room = field(default_factory=Room)

    def __call__(self, weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
        matrices = weights[:, self.weight].reshape(len(weights), self.shape[0], -1)  # (K, out, in)
        if self.norm and not moments.counting:
            matrices = matrices * self.norm.scale(weights, moments)[:, :, None]
        places = inputs.shape[2:] if len(self.shape) > 2 else inputs.shape[-1:]
        columns = patches(inputs, self.shape[2], self.room) if len(self.shape) > 2 else inputs
        outputs = multiplied(matrices, columns, self.room).view(len(weights), self.shape[0], *places)
        if self.norm and moments.counting:
            moments.count(self.norm.number, outputs, self.norm.layer_bias(weights))
            outputs *= beside(self.norm.scale(weights, moments), outputs)
        return outputs


@dataclass(frozen=True, slots=True)
class Shift:
    """What a linear layer or a convolution adds to its products: its bias, or batch norm's shift."""

    by: slice | Norm
    rising: ClassVar[bool] = True

    def __call__(self, weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
        shift = self.by.shift(weights, moments) if isinstance(self.by, Norm) else weights[:, self.by]
        return inputs.add_(beside(shift, inputs))


@dataclass(frozen=True, slots=True)
class Activation:
    """Number by number."""

    module: nn.Module

    @property
    def rising(self) -> bool:
        """Whether the largest number comes out as the largest."""
        return type(self.module) in RISING

    def __call__(self, weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
        """In place where torch can: what comes in is a layer's own memory."""
        outputs: Tensor = RISING.get(type(self.module), self.module)(inputs)
        return outputs


def multiplied(matrices: Tensor, columns: Tensor, room: Room) -> Tensor:
    """(K, out, in), (K | 1, in, columns) -> (K, out, columns)"""
    outputs = room.take("outputs", matrices, *matrices.shape[:2], columns.shape[2])
    if len(columns) == 1:
        torch.mm(matrices.flatten(0, 1), columns[0], out=outputs.flatten(0, 1))
    else:
        torch.bmm(matrices, columns, out=outputs)
    return outputs


def patches(inputs: Tensor, size: int, room: Room) -> Tensor:
    """What a convolution sees, zeros around: (K, channels, h, w, n) -> (K, channels · size², h · w · n)."""
    many, channels, height, width, examples = inputs.shape
    edge = size // 2
    around = room.take("around", inputs, many, channels, height + 2 * edge, width + 2 * edge, examples).zero_()
    around[:, :, edge : edge + height, edge : edge + width] = inputs
    windows = around.unfold(2, size, 1).unfold(3, size, 1).permute(0, 1, 5, 6, 2, 3, 4)
    room.take("columns", inputs, *windows.shape).copy_(windows)
    return room.take("columns", inputs, many, channels * size**2, height * width * examples)


@dataclass(frozen=True, slots=True)
class Pool:
    """The largest of each 2 by 2: (K, channels, h, w, n) -> (K, channels, h // 2, w // 2, n)."""

    room: Room = field(default_factory=Room)

    def __call__(self, weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
        height, width = (size // 2 for size in inputs.shape[2:4])
        upper, lower = inputs[:, :, 0 : 2 * height : 2, : 2 * width], inputs[:, :, 1 : 2 * height : 2, : 2 * width]
        rows = torch.maximum(upper, lower, out=self.room.take("rows", inputs, *upper.shape))
        left, right = rows[:, :, :, 0::2], rows[:, :, :, 1::2]
        return torch.maximum(left, right, out=self.room.take("outputs", inputs, *left.shape))


def flattened(weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
    return inputs.flatten(1, -2)


def beside(values: Tensor, outputs: Tensor) -> Tensor:
    """(K, channels) so that it broadcasts over (K, channels, …)."""
    return values.reshape(*values.shape, *(1 for _ in outputs.shape[2:]))


@dataclass(frozen=True, slots=True)
class Stack:
    """The layers of a network; `widest` is how many numbers a layer holds of one example, and `norms` are its own."""

    layers: tuple[Layer, ...]
    widest: int
    norms: tuple[nn.BatchNorm1d | nn.BatchNorm2d, ...]

    def outputs(self, weights: Tensor, inputs: Tensor, moments: Moments) -> Tensor:
        """(K, P), (n, *shape) -> (K, outputs, n)"""
        values = inputs.movedim(0, -1).contiguous()[None]
        for layer in self.layers:
            values = layer(weights, values, moments)
        return values.clone()

    def own(self) -> Moments:
        """The running statistics of the network as they stand."""
        running = [(each.running_mean, each.running_var) for each in self.norms]
        means = [mean[None] for mean, _ in running if mean is not None]
        return Moments(means, [variance[None] for _, variance in running if variance is not None])

    def estimated(self, weights: Tensor, inputs: Tensor, batch_size: int) -> Moments:
        """For each network what `reestimate_batch_norm` sets its running statistics to."""
        counting = self.own()
        counting.counting = True
        for batch in torch.split(inputs, chunk_sizes(len(inputs), batch_size)):
            self.outputs(weights, batch, counting)
        found = [counting.sums[number] for number in range(len(self.norms))]
        return Moments([mean / len(inputs) for mean, _ in found], [variance / len(inputs) for _, variance in found])


def stack(network: Network, example: Tensor) -> Stack | None:
    """The network's layers over many weights, or None where one of them is not known here. `example` (1, *shape)."""
    steps: list[Layer] = []
    norms: list[nn.BatchNorm1d | nn.BatchNorm2d] = []
    before: nn.Module | None = None
    modules = [each for each in network.module if type(each) is not nn.Dropout]
    for module, after in pairwise((*modules, nn.Identity())):
        if _multiplies(module):
            norm = _norm(module, after, len(norms)) if _normalises(after) else None
            steps += _products(module, norm)
        elif _normalises(module) and before is not None and _multiplies(before):
            norms.append(module)
        elif type(module) in ACTIVATIONS and any(isinstance(step, Product) for step in steps):
            steps.append(Activation(module))
        elif type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            steps.append(flattened)
        elif type(module) is nn.MaxPool2d and _halves(module):
            steps.insert(_earliest(steps), Pool())
        else:
            return None
        before = module
    return Stack(tuple(steps), _widest(network, example), tuple(norms))


def _multiplies(module: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Convolutions with an odd square kernel that keep the size of the picture; linear layers."""
    if type(module) is nn.Linear:
        return True
    if type(module) is not nn.Conv2d:
        return False
    plain = (module.stride, module.dilation, module.groups, module.padding_mode) == ((1, 1), (1, 1), 1, "zeros")
    height, width = module.kernel_size
    return plain and height == width and height % 2 == 1 and module.padding == (height // 2, width // 2)


def _normalises(module: nn.Module) -> TypeGuard[nn.BatchNorm1d | nn.BatchNorm2d]:
    return type(module) in {nn.BatchNorm1d, nn.BatchNorm2d} and bool(module.affine and module.track_running_stats)


def _halves(module: nn.MaxPool2d) -> bool:
    sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
    return sizes == (2, 2, 0, 1) and not module.ceil_mode


def _place(parameter: Tensor) -> slice:
    """Where a parameter stands in the flat weights."""
    start = int(parameter.storage_offset())
    return slice(start, start + parameter.numel())


def _norm(module: nn.Linear | nn.Conv2d, norm: nn.BatchNorm1d | nn.BatchNorm2d, number: int) -> Norm:
    bias = None if module.bias is None else _place(module.bias)
    return Norm(number, _place(norm.weight), _place(norm.bias), norm.eps, bias)


def _products(module: nn.Linear | nn.Conv2d, norm: Norm | None) -> Iterator[Layer]:
    yield Product(_place(module.weight), module.weight.shape, norm)
    if norm:
        yield Shift(norm)
    elif module.bias is not None:
        yield Shift(_place(module.bias))


def _earliest(steps: Sequence[Layer]) -> int:
    """Where pooling costs least: what keeps the order of numbers can wait until only the largest are left."""
    rising = takewhile(lambda step: isinstance(step, Shift | Activation) and step.rising, reversed(steps))
    return len(steps) - len(list(rising))


def _widest(network: Network, example: Tensor) -> int:
    widest, values = 1, example
    with inspecting(network.module):
        for module in network.module:
            seen = module.kernel_size[0] ** 2 if isinstance(module, nn.Conv2d) else 1
            widest = max(widest, values.numel() * seen)
            values = module(values)
    return max(widest, values.numel())
