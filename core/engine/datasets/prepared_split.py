"""A split of a prepared dataset: rows of a source, transformed when they are taken."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from core.engine.datasets.augment import Augmentation
from core.engine.datasets.draws import Draws
from core.engine.datasets.resident import TensorSplit
from core.engine.datasets.source import Source
from core.engine.datasets.split import Batch, EpochOrder, iterate_chunks, select_rows
from core.engine.datasets.windows import aligned_start, narrow, row_bytes, window_examples
from core.engine.liveness import ReportAlive, report_each

BATCH_NORM_EPOCH = 0
"""The epoch whose draws the re-estimation of batch norm has, with the seed of the split."""


class Transform(Protocol):
    """From the tensors of some rows to inputs: each row on its own, so that no bit depends on the others."""

    def __call__(self, raw: Mapping[str, Tensor]) -> Tensor:
        """Tensors (b, …) by name -> float32 (b, *shape)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input."""


@dataclass(frozen=True, slots=True)
class PreparedSplit:
    """`rows` int64 (n,) are the examples as rows of the source, on the CPU; `targets` those of the split.

    Draws of the augmentation are a function of (seed, epoch, row of the source).
    """

    source: Source
    rows: Tensor
    targets: Tensor
    transform: Transform
    augmentation: Augmentation | None = None
    split_seed: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_augmented(self) -> bool:
        return self.augmentation is not None

    def take(self, indices: Tensor) -> Batch:
        raw = self.source.take(select_rows(self.rows, indices))
        return self.transform(raw), select_rows(self.targets, indices)

    def chunk(self, start: int, stop: int, *, augmented: bool = False) -> Batch:
        """A view of a gather with the alignment of the whole split. Only changes of single examples are drawn."""
        begin = aligned_start(start, row_bytes(self.transform.shape))
        rows = self.rows[begin:stop]
        raw = self.source.take(rows)
        if augmented and self.augmentation:
            draws = Draws(self.split_seed, BATCH_NORM_EPOCH, rows.to(self.source.device))
            raw = self.augmentation.change_each(raw, draws)
        return narrow(self.transform(raw), start - begin), self.targets[start:stop]

    def whole(self) -> Batch:
        return self.chunk(0, len(self))

    def select(self, indices: Tensor) -> "PreparedSplit":
        chosen = select_rows(self.rows, indices), select_rows(self.targets, indices)
        return PreparedSplit(self.source, *chosen, self.transform, self.augmentation, self.split_seed)

    def epoch_batches(self, order: EpochOrder, size: int, first: int) -> Iterator[Batch]:
        """Views of windows of batches: the batches that a TensorSplit of the same examples has."""
        window = window_examples(size, row_bytes(self.transform.shape))
        for begin in range(first * size // window * window, len(order.indices), window):
            inputs, targets = self.take_window(order, begin, begin + window)
            pairs = zip(torch.split(inputs, size), torch.split(targets, size), strict=True)
            yield from list(pairs)[max(0, first - begin // size) :]

    def take_window(self, order: EpochOrder, begin: int, end: int) -> Batch:
        """The examples at the positions begin <= p < end of the epoch, augmented."""
        indices = order.indices[begin:end]
        if not self.augmentation:
            return self.take(indices)
        rows, targets = select_rows(self.rows, indices), select_rows(self.targets, indices)
        draws = Draws(order.seed, order.epoch, rows.to(self.source.device))
        if not self.augmentation.mixes:
            return self.transform(self.augmentation.change_each(self.source.take(rows), draws)), targets
        partners = partner_indices(order, begin, end)
        others = select_rows(self.rows, partners)
        raw, targets = self.augmentation.change_and_mix(
            (self.source.take(rows), targets, draws),
            (
                self.source.take(others),
                select_rows(self.targets, partners),
                Draws(order.seed, order.epoch, others.to(self.source.device)),
            ),
        )
        return self.transform(raw), targets


def partner_indices(order: EpochOrder, begin: int, end: int) -> Tensor:
    """The partner of each position: the example `shift` positions later in the epoch, around its end.

    Each example is a partner once in an epoch, and never its own unless the epoch has one example.
    """
    used = len(order.indices)
    shift = 1 + Draws.whole_number(order.seed, order.epoch, "partners", max(1, used - 1))
    positions = torch.arange(begin, min(end, used)).add(shift).remainder(used)
    return select_rows(order.indices, positions)


def materialise_split(split: PreparedSplit, chunk: int, report_alive: ReportAlive) -> TensorSplit:
    """The same split with its inputs on the device, transformed once in chunks of this many examples."""
    inputs = torch.empty(len(split), *split.transform.shape, device=split.source.device)
    start = 0
    for some, _ in report_each(report_alive, "dataset", iterate_chunks(split, chunk)):
        inputs[start : start + len(some)] = some
        start += len(some)
    return TensorSplit(inputs, split.targets)
