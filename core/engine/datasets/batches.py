"""The order of examples: one draw per epoch, a function of (seed, epoch) alone."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.engine.datasets.resident import Split
from core.engine.determinism import seeded_generator

Batch = tuple[Tensor, Tensor]
Order = Callable[[int, int, int], Tensor]  # examples, seed, epoch -> indices


def epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    """Each index once, int64 (examples,), on the CPU: every device sees the same order."""
    return torch.randperm(examples, generator=seeded_generator(seed, "order", epoch))


def epoch_draws(examples: int, seed: int, epoch: int) -> Tensor:
    """Indices drawn with replacement, int64 (examples,): some repeat, about a third are absent."""
    return torch.randint(examples, (examples,), generator=seeded_generator(seed, "draws", epoch))


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

    A whole epoch is gathered at once and then split: one copy instead of one per step. `cut` None is the full batch:
    every step has the whole split, in its own order.
    """
    if cut is None:
        yield from ((t, (part.inputs, part.targets)) for t in range(first, last))
        return
    size, per_epoch = cut.size, -(-cut.used // cut.size)
    t = first
    while t < last:
        epoch, done = divmod(t, per_epoch)
        order = cut.order(len(part), seed, epoch)[: cut.used].to(part.inputs.device)
        pairs = zip(torch.split(part.inputs[order], size), torch.split(part.targets[order], size), strict=True)
        for batch in list(pairs)[done : done + last - t]:
            yield t, batch
            t += 1
