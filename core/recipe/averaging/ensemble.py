"""An ensemble keeps networks that a run passes through, and averages what they predict, not their weights."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.averaging.base import AveragingSpec, CollectionSteps
from core.recipe.duration import RunLength

MEMBER = "snapshot"
"""The kind of checkpoint that a member becomes; a job has one for each of them."""

Members = Annotated[int, Field(ge=2, le=1000)]
LearningRate = Callable[[int], float]


class EnsembleSpec(AveragingSpec):
    """`method` picks it from its union. Members keep weights and batch-norm statistics as they were trained.

    Predictions are the mean of the members' probabilities, of a regression the mean of their outputs. Only the last
    `members` count where more are collected.
    """

    field: ClassVar[str] = "ensemble"
    owns_rate: ClassVar[bool] = True
    divides_run: ClassVar[bool] = False
    """Whether nothing can be said of it before the length of the run is known."""

    members: Members | None = None

    @abstractmethod
    def collection_steps(self, run: RunLength) -> CollectionSteps:
        """When a member is collected."""

    def owned_from(self, run: RunLength) -> int | None:
        """The step from which on it says the rate, if it does."""
        return None

    @abstractmethod
    def override_schedule(self, base: LearningRate, run: RunLength, optimizer_lr: float) -> LearningRate:
        """The learning rate of a run whose schedule is `base`."""

    @abstractmethod
    def length_problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """Lengths that mean nothing in a given run, so that there are no occasions; pointers are relative."""

    def member_count(self, run: RunLength) -> int:
        """How many members there are at the end."""
        count = self.collection_steps(run).count_until(run.total_steps)
        return count if self.members is None else min(count, self.members)

    def resolved(self, run: RunLength, optimizer_lr: float) -> Self:
        """With all that follows from the rest written out."""
        return self.model_copy(update={"members": self.members or self.member_count(run)})

    def problems(self, run: RunLength, optimizer_lr: float) -> Iterator[FieldProblem]:
        """What makes no sense in a given run; pointers are relative to the spec."""
        lengths = list(self.length_problems(run))
        yield from lengths
        if not lengths and (found := self.collection_steps(run)).count_until(run.total_steps) < 2:
            message = "an ensemble has two members at least; the second would be collected at step "
            message += f"{found.first + found.every:,}, but the run ends after {run.total_steps:,}"
            yield FieldProblem("", message, "train longer, or collect more often")
