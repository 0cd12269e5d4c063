"""The order of examples: one draw per epoch, a function of (seed, epoch) alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import torch
from torch import Tensor

from core.engine.datasets.split import Batch, EpochOrder, Split
from core.engine.determinism import seeded_generator
from core.recipe.data import Dataset
from core.recipe.spec import JobSpec

BLOCK: Final = 4096  # rows
BLOCKS_TOGETHER: Final = 64

Order = Callable[[int, int, int], Tensor]  # examples, seed, epoch -> indices


def epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    """Each index once, int64 (examples,), on the CPU: every device sees the same order."""
    return torch.randperm(examples, generator=seeded_generator(seed, "order", epoch))


def epoch_draws(examples: int, seed: int, epoch: int) -> Tensor:
    """Indices drawn with replacement, int64 (examples,): some repeat, about a third are absent."""
    return torch.randint(examples, (examples,), generator=seeded_generator(seed, "draws", epoch))


def block_order(examples: int, seed: int, epoch: int) -> Tensor:
    """Each index once, int64 (examples,): blocks of rows that lie together are shuffled, then examples in windows.

    Blocks of 4,096 indices are permuted; then the indices of each 64 blocks that follow one another are. So a disk
    reads a window at a time, and an example moves anywhere in an epoch, but only with its block.
    """
    generator = seeded_generator(seed, "blocks", epoch)
    blocks = torch.randperm(-(-examples // BLOCK), generator=generator)
    windows: list[Tensor] = []
    for chosen in torch.split(blocks, BLOCKS_TOGETHER):
        indices = (chosen[:, None] * BLOCK + torch.arange(BLOCK)).flatten()
        indices = indices[indices < examples]
        windows.append(indices[torch.randperm(len(indices), generator=generator)])
    return torch.cat(windows)


def order_of(spec: JobSpec) -> Order:
    """The order of a job's epochs."""
    if spec.sampling == "with_replacement":
        return epoch_draws
    blocks = isinstance(spec.data, Dataset) and spec.data.shuffle == "blocks"
    return block_order if blocks else epoch_order


def own_order(examples: int, seed: int, epoch: int) -> Tensor:
    """The order of the split itself, int64 (examples,)."""
    del seed, epoch
    return torch.arange(examples)


@dataclass(frozen=True, slots=True)
class BatchSampler:
    """How an epoch is split into batches: the first `used` of the ordered examples, `size` per optimizer step."""

    size: int
    used: int
    order: Order = epoch_order


def iterate_batches(
    part: Split, cut: BatchSampler | None, seed: int, first: int, last: int
) -> Iterator[tuple[int, Batch]]:
    """(t, batch) for the optimizer steps first <= t < last; an epoch's last batch may be smaller.

    `cut` None is the full batch: every step has the whole split, in its own order.
    """
    if cut is None and not part.is_augmented:
        whole = part.whole() if first < last else None
        yield from ((t, whole) for t in range(first, last) if whole is not None)
        return
    cut = cut or BatchSampler(len(part), len(part), own_order)
    per_epoch = -(-cut.used // cut.size)
    t = first
    while t < last:
        epoch, done = divmod(t, per_epoch)
        order = EpochOrder(cut.order(len(part), seed, epoch)[: cut.used], seed, epoch)
        for batch in islice(part.epoch_batches(order, cut.size, done), last - t):
            yield t, batch
            t += 1
