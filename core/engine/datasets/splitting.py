"""The split of the examples into train, validation and test: a function of the targets and the split seed alone."""

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from core.engine.determinism import seeded_generator
from core.recipe.data import SplitSizes


@dataclass(frozen=True, slots=True)
class SplitIndices:
    """Indices of each split, ascending, int64."""

    train: Tensor
    validation: Tensor
    test: Tensor


MOST_ENCODED: Final = 2_000_000
"""Examples of a dataset whose split is reported; a larger one would not fit into an answer."""


def encode_split(rows: SplitIndices) -> str | None:
    """The split of each example as text: base64 of zlib of a byte per row, 0 train, 1 validation, 2 test, 3 none.

    None for more than MOST_ENCODED examples.
    """
    parts = (rows.train, rows.validation, rows.test)
    examples = 1 + max(int(part.max()) for part in parts if len(part))
    if examples > MOST_ENCODED:
        return None
    codes = torch.full((examples,), len(parts), dtype=torch.uint8)
    for code, part in enumerate(parts):
        codes[part] = code
    return base64.b64encode(zlib.compress(codes.numpy().tobytes())).decode()


def split_indices(groups: Tensor, sizes: SplitSizes, seed: int) -> SplitIndices:
    """A stratified split: each group (class) has its share of each split, by largest remainders, with exact sizes.

    `groups` int64 (N,); pass zeros for regression.
    """
    generator = seeded_generator(seed, "split")
    members = split_by_group(groups)
    for_test = apportion([len(each) for each in members], sizes.test)
    left = [len(each) - taken for each, taken in zip(members, for_test, strict=True)]
    for_validation = apportion(left, sizes.validation)
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for each, tests, validations in zip(members, for_test, for_validation, strict=True):
        mixed = each[torch.randperm(len(each), generator=generator)]
        pieces = torch.split(mixed, [tests, validations, len(each) - tests - validations])
        for part, piece in zip(parts, pieces, strict=True):
            part.append(piece)
    test, validation, train = (torch.cat(part).sort().values for part in parts)
    return SplitIndices(train=train, validation=validation, test=test)


def split_by_group(groups: Tensor) -> list[Tensor]:
    """The indices of each group, ascending, int64; the groups ascend too."""
    order = groups.argsort(stable=True)
    return list(torch.split(order, torch.unique_consecutive(groups[order], return_counts=True)[1].tolist()))


def split_by_part(parts: Tensor) -> SplitIndices:
    """The split that `parts` (N,) says: 0 train, 1 validation, 2 test."""
    train, validation, test = (torch.nonzero(parts == part).flatten() for part in range(3))
    return SplitIndices(train=train, validation=validation, test=test)


def split_tail(examples: int, sizes: SplitSizes) -> SplitIndices:
    """The last examples are the test split, those before them the validation split."""
    indices = torch.arange(examples)
    train, validation, test = torch.split(indices, [sizes.train, sizes.validation, sizes.test])
    return SplitIndices(train=train, validation=validation, test=test)


def apportion(sizes: Sequence[int], seats: int) -> list[int]:
    """`seats` distributed in proportion to `sizes` by largest remainders (ties to the earlier), at most each size."""
    total = sum(sizes)
    if not 0 <= seats <= total:
        raise ValueError(f"cannot take {seats} of {total}")
    if seats == 0:
        return [0] * len(sizes)
    shares = [divmod(size * seats, total) for size in sizes]
    given = [whole for whole, _ in shares]
    by_remainder = sorted(range(len(sizes)), key=lambda index: (-shares[index][1], index))
    for index in by_remainder[: seats - sum(given)]:
        given[index] += 1
    return given
