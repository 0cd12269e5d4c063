"""In which order examples are seen: one permutation per epoch, a function of (seed, epoch) and of nothing else."""

from collections.abc import Iterator

import torch
from torch import Tensor

from core.engine.datasets.resident import Part
from core.engine.determinism import stream

Batch = tuple[Tensor, Tensor]


def epoch_order(examples: int, seed: int, epoch: int) -> Tensor:
    """Each index once, int64 (examples,), on the CPU: every device sees the same order."""
    return torch.randperm(examples, generator=stream(seed, "order", epoch))


def batches(part: Part, size: int | None, seed: int, first: int, last: int) -> Iterator[tuple[int, Batch]]:
    """(t, batch) for the optimizer steps first <= t < last; an epoch's last batch may be smaller.

    A whole epoch is gathered at once and then cut: one copy instead of one per step. `size` None is the full batch: the
    part itself, in its own order, every step.
    """
    if size is None:
        yield from ((t, (part.inputs, part.targets)) for t in range(first, last))
        return
    per_epoch = -(-len(part) // size)
    t = first
    while t < last:
        epoch, done = divmod(t, per_epoch)
        order = epoch_order(len(part), seed, epoch).to(part.inputs.device)
        pairs = zip(torch.split(part.inputs[order], size), torch.split(part.targets[order], size), strict=True)
        for batch in list(pairs)[done : done + last - t]:
            yield t, batch
            t += 1
