"""How the rows of an uploaded dataset are divided into train, validation and test."""

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final, Literal

from pydantic import Field

from core.recipe.component import Spec
from core.recipe.data.base import split_sizes

MOST_NAMES: Final = 10_000
ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]
Values = Annotated[tuple[Annotated[str, Field(max_length=10_000)], ...], Field(max_length=MOST_NAMES)]


class RandomSplit(Spec):
    """The shares `validation` and `test`, drawn by `split_seed`; with `stratify` each class has its share of each part.

    `stratify` is true for a classification unless it is given, and false for a regression.
    """

    by: Literal["random"] = "random"
    stratify: bool | None = None


class StoredSplit(Spec):
    """The parts that the upload itself has: its folders or files train, validation and test.

    The shares `validation` and `test` have no effect. It is the default where the upload has such parts.
    """

    by: Literal["stored"] = "stored"


class ColumnSplit(Spec):
    """A row whose value in the category `column` is among `validation` or `test` belongs to that part, else to train.

    A row without a value is for training. The shares `validation` and `test` have no effect. The column is no feature.
    """

    by: Literal["column"] = "column"
    column: ColumnName
    validation: Values = ()
    test: Values = ()


class GroupSplit(Spec):
    """Rows with the same value in the category `column` stay in one part. The column is no feature.

    Groups are taken whole, in the order of the SHA-256 of "<split_seed>:<value>", until the test part has at least its
    share of the rows, then until the validation part has.
    """

    by: Literal["group"] = "group"
    column: ColumnName


class TailSplit(Spec):
    """The last rows of the upload are the test part, those before them the validation part: for data in time order.

    The parts have the shares `test` and `validation`.
    """

    by: Literal["tail"] = "tail"


Split = Annotated[RandomSplit | StoredSplit | ColumnSplit | GroupSplit | TailSplit, Field(discriminator="by")]


def assign_groups(
    names: Sequence[str], counts: Sequence[int], split_seed: int, validation: float, test: float
) -> tuple[int, ...]:
    """The part of each group, in the order of `names`: 0 train, 1 validation, 2 test.

    `counts` are the rows of each group. Groups come in the order of SHA-256 of "<split_seed>:<name>" in UTF-8. A part
    takes whole groups while it has fewer rows than split_sizes gives it: test first, then validation.
    """
    wanted = split_sizes(sum(counts), validation, test)
    order = sorted(range(len(names)), key=lambda index: sha256(f"{split_seed}:{names[index]}".encode()).digest())
    parts, taken = [0] * len(names), {1: 0, 2: 0}
    for index in order:
        part = 2 if taken[2] < wanted.test else 1 if taken[1] < wanted.validation else 0
        if part == 0:
            break
        parts[index] = part
        taken[part] += counts[index]
    return tuple(parts)
