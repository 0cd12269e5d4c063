"""How much an analysis computes at once: a size that fits the caches of a CPU would leave a GPU idle.

The size of a tile does not depend on these sizes: tiles are counted in checkpoints and distributed over parts, so they
are the same on every device. These sizes are the same on every device of a kind, so that a resume there is exact.
"""

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from core.engine.evaluation.evaluate import eval_mode
from core.engine.networks.layers import plain_layers
from core.engine.networks.network import Network


@dataclass(frozen=True, slots=True)
class Sizes:
    """Limits on memory.

    `numbers` in the widest layer of networks that are computed together, `columns` of examples in them, `room` in bytes
    for the autograd graph of one pass, and `gradients`: numbers in all gradients that are held together.
    """

    numbers: int
    columns: int
    room: int
    gradients: int


CPU: Final = Sizes(numbers=2**21, columns=64, room=2**30, gradients=2**24)


def sizes_for(kind: str, memory: int) -> Sizes:
    """The sizes for a kind of device; `memory` in bytes counts on a GPU, where each size takes a small share of it.

    A layer of `numbers` float32 takes a 64th, and each layer keeps its own. A graph takes a 16th. A float32 gradient
    and its float64 copy take 12 bytes a number, together about an eleventh.
    """
    if kind == "cpu":
        return CPU
    return Sizes(
        numbers=max(CPU.numbers, memory // 256),
        columns=1024,
        room=max(CPU.room, memory // 16),
        gradients=max(CPU.gradients, memory // 128),
    )


def sizes_on(device: torch.device) -> Sizes:
    """The sizes for a device, from the total memory that the process may use, not from what is free at present."""
    if device.type == "cpu":
        return CPU
    _, total = torch.cuda.mem_get_info(device)
    return sizes_for(device.type, int(total * torch.cuda.get_per_process_memory_fraction(device)))


class NumberCount(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the numbers that operations compute; views do not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.total += sum(each.numel() for each in tree_leaves(found) if isinstance(each, Tensor))
        return found


def count_activations(network: Network, example: Tensor) -> int:
    """The number of activations that one example (1, *shape) has in all layers of the network."""
    layers = plain_layers(network.module)
    with eval_mode(network.module):
        if layers is None:
            with NumberCount() as count:
                network.module(example)
            return int(count.total)
        total, values = 0, example
        for _, layer in layers:
            values = layer(values)
            total += values.numel()
    return total
