"""Products of many weight matrices with the inputs of their layers, examples last: linear layers and convolutions."""

import math
from dataclasses import dataclass, field
from typing import Final, Protocol

import torch
from torch import Tensor

COPYING: Final = 40  # output channels whose multiplication costs as much as the copy of patches (measured)


class ScratchMemory:
    """Memory that a layer reuses for every batch: new pages would cost as much as the copies made there."""

    def __init__(self) -> None:
        self._taken: dict[str, Tensor] = {}

    def take_tensor(self, name: str, like: Tensor, *shape: int) -> Tensor:
        """An uninitialised tensor of that shape; it overwrites the earlier one of the same name."""
        size = math.prod(shape)
        if name not in self._taken or len(self._taken[name]) < size:
            self._taken[name] = like.new_empty(size)
        return self._taken[name][:size].view(shape)


class ProductMethod(Protocol):
    """A method for the products of a layer. Its matrices (K, out, in) are prepared once, before the examples."""

    def prepare_matrices(self, matrices: Tensor) -> Tensor: ...

    def multiply_prepared(self, prepared: Tensor, inputs: Tensor) -> Tensor:
        """Inputs (K | 1, *shape, n) -> outputs (K, out, *positions, n), in the layer's own memory."""


@dataclass(frozen=True, slots=True)
class DenseProduct:
    """A linear layer: (K | 1, in, n) -> (K, out, n)."""

    room: ScratchMemory = field(default_factory=ScratchMemory)

    def prepare_matrices(self, matrices: Tensor) -> Tensor:
        return matrices

    def multiply_prepared(self, prepared: Tensor, inputs: Tensor) -> Tensor:
        return multiply_matrices(prepared, inputs, self.room)


@dataclass(frozen=True, slots=True)
class Im2colProduct:
    """A convolution as one product with copies of zero-padded patches; for wide pictures, where BandedProduct wastes.

    (K | 1, channels, h, w, n) -> (K, out, h, w, n)
    """

    size: int
    room: ScratchMemory = field(default_factory=ScratchMemory)

    def prepare_matrices(self, matrices: Tensor) -> Tensor:
        return matrices

    def multiply_prepared(self, prepared: Tensor, inputs: Tensor) -> Tensor:
        found = multiply_matrices(prepared, self._im2col_columns(inputs), self.room)
        return found.view(*found.shape[:2], *inputs.shape[2:])

    def _im2col_columns(self, inputs: Tensor) -> Tensor:
        """(K | 1, channels · size², h · w · n)"""
        many, channels, height, width, examples = inputs.shape
        edge = self.size // 2
        around = self.room.take_tensor("around", inputs, many, channels, height + 2 * edge, width + 2 * edge, examples)
        around.zero_()[:, :, edge : edge + height, edge : edge + width] = inputs
        windows = around.unfold(2, self.size, 1).unfold(3, self.size, 1).permute(0, 1, 5, 6, 2, 3, 4)
        self.room.take_tensor("columns", inputs, *windows.shape).copy_(windows)
        return self.room.take_tensor("columns", inputs, many, channels * self.size**2, height * width * examples)


@dataclass(frozen=True, slots=True)
class BandedProduct:
    """A convolution row by row: a banded matrix maps the neighbouring input rows to one output row.

    Patches are not copied, and for narrow pictures few products with zeros are added. The shapes are those of
    Im2colProduct. In memory, rows are before channels, so that neighbouring rows are one block.
    """

    size: int
    width: int
    room: ScratchMemory = field(default_factory=ScratchMemory)

    def prepare_matrices(self, matrices: Tensor) -> Tensor:
        """(K, out, channels · size²) -> (K, out · width, size · channels · width)"""
        many, outputs = matrices.shape[:2]
        kernels = matrices.reshape(many, outputs, -1, self.size, self.size).transpose(
            2, 3
        )  # (K, out, row, channel, column)
        bands = matrices.new_zeros(many, outputs, self.width, self.size, kernels.shape[3], self.width)
        for column in range(self.size):
            offset = column - self.size // 2
            if abs(offset) < self.width:
                bands.diagonal(offset, 2, 5).copy_(kernels[..., column, None])
        return bands.view(many, outputs * self.width, -1)

    def multiply_prepared(self, prepared: Tensor, inputs: Tensor) -> Tensor:
        many, channels, height, width, examples = inputs.shape
        rows, edge = inputs.transpose(1, 2), self.size // 2  # (K, h, channels, w, n)
        if not rows.is_contiguous():
            rows = self.room.take_tensor("rows", inputs, *rows.shape).copy_(rows)
        block, outputs = channels * width, prepared.shape[1]
        flat = rows.view(many, height * block, examples)
        found = self.room.take_tensor("outputs", inputs, height, many, outputs, examples)
        for row in range(height):
            first, last = max(0, row - edge), min(height, row + edge + 1)
            seen = slice((first - row + edge) * block, (last - row + edge) * block)
            torch.bmm(prepared[:, :, seen], flat[:, first * block : last * block], out=found[row])
        return found.view(height, many, outputs // width, width, examples).permute(1, 2, 0, 3, 4)


def choose_product(shape: torch.Size, width: int, *, shared: bool) -> ProductMethod:
    """The method for a layer with weights of `shape`; an input `shared` by all networks is copied only once."""
    if len(shape) == 2:
        return DenseProduct()
    narrow = shape[0] * (width / shape[2] - 1) < COPYING
    return BandedProduct(shape[2], width) if narrow and not shared else Im2colProduct(shape[2])


def multiply_matrices(matrices: Tensor, columns: Tensor, room: ScratchMemory) -> Tensor:
    """(K, out, in), (K | 1, in, columns) -> (K, out, columns)"""
    outputs = room.take_tensor("outputs", matrices, *matrices.shape[:2], columns.shape[2])
    if len(columns) == 1:
        torch.mm(matrices.flatten(0, 1), columns[0], out=outputs.flatten(0, 1))
    else:
        torch.bmm(matrices, columns, out=outputs)
    return outputs
