"""RunShape: the sizes of one run, computed once from the facts of its data and then passed on."""

from dataclasses import dataclass
from typing import Literal, Protocol

from core.recipe.data.base import SplitSizes
from core.recipe.duration import LONGEST, RunLength
from core.recipe.facts import DataFacts


class Batched(Protocol):
    """The fields of a job or a preview that divide train examples into optimizer steps, and bound their number."""

    @property
    def batch_size(self) -> int | Literal["full"]: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def drop_last(self) -> bool: ...

    @property
    def epochs(self) -> int | None: ...

    @property
    def steps(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class RunShape:
    """The numbers of examples and optimizer steps of a run."""

    facts: DataFacts
    split: SplitSizes
    batch: int
    """Examples in one full batch."""
    examples_per_epoch: int
    """Train examples in an epoch: all, or with `drop_last` those of full batches only."""
    run: RunLength


def examples_used(examples: int, batch: int, *, drop_last: bool) -> int:
    """Examples in an epoch: all, or with `drop_last` those of full batches only."""
    return examples - examples % batch if drop_last else examples


def optimizer_steps(examples: int, batch: int, accumulate: int, *, drop_last: bool) -> int:
    """Optimizer steps in an epoch: ceil(batches / accumulate)."""
    return -(-examples_used(examples, batch, drop_last=drop_last) // (batch * accumulate))


def resolve_shape(facts: DataFacts, split: SplitSizes, fields: Batched) -> RunShape:
    """The sizes of a run. Defined for every input, because the checks of a job need them for invalid jobs too."""
    batch = max(1, split.train) if fields.batch_size == "full" else fields.batch_size
    used = examples_used(split.train, batch, drop_last=fields.drop_last)
    return RunShape(facts, split, batch, used, resolve_run_length(split.train, batch, fields))


def resolve_run_length(examples: int, batch: int, fields: Batched) -> RunLength:
    """Steps per epoch and in total; with both `epochs` and `steps`, the first limit reached ends the run.

    An epoch has ceil(ceil(examples / batch) / accumulate) steps; `drop_last` rounds down. A run without either budget
    is not bounded.
    """
    per_epoch = optimizer_steps(examples, batch, fields.accumulate, drop_last=fields.drop_last)
    budgets = [budget for budget in (fields.epochs and fields.epochs * per_epoch, fields.steps) if budget]
    return RunLength(per_epoch, min(budgets, default=LONGEST), bounded=bool(budgets))
