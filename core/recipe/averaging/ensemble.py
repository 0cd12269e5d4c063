"""The base class of ensembles: the average of the predictions of several networks of one run, not of their weights."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Self

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.averaging.base import AveragingSpec, CollectionSteps
from core.recipe.duration import RunLength

MEMBER = "snapshot"
"""The kind of the checkpoints of members; each member has one."""

Members = Annotated[int, Field(ge=2, le=1000)]
LearningRate = Callable[[int], float]


class EnsembleSpec(AveragingSpec):
    """`method` selects the ensemble. Members keep weights and batch-norm statistics as they were trained.

    Predictions are the mean of the members' probabilities, or in a regression the mean of their outputs. If more are
    collected, only the last `members` count.
    """

    field: ClassVar[str] = "ensemble"
    sets_rate: ClassVar[bool] = True
    divides_run: ClassVar[bool] = False
    """Whether it depends on the total length of the run."""

    members: Members | None = None

    @abstractmethod
    def collection_steps(self, run: RunLength) -> CollectionSteps:
        """The steps at which a member is collected."""

    def sets_rate_from(self, run: RunLength) -> int | None:
        """The step from which it sets the learning rate; None if it does not."""
        return None

    @abstractmethod
    def override_schedule(self, base: LearningRate, run: RunLength, optimizer_lr: float) -> LearningRate:
        """The learning rate of a run whose schedule is `base`."""

    @abstractmethod
    def length_problems(self, run: RunLength) -> Iterator[FieldProblem]:
        """Lengths that are too short in a given run, so that no member is collected; pointers are relative."""

    def member_count(self, run: RunLength) -> int:
        """The number of members at the end."""
        count = self.collection_steps(run).count_until(run.total_steps)
        return count if self.members is None else min(count, self.members)

    def resolved(self, run: RunLength, optimizer_lr: float) -> Self:
        """The same spec with every default that depends on other fields filled in."""
        return self.model_copy(update={"members": self.members or self.member_count(run)})

    def problems(self, run: RunLength, optimizer_lr: float) -> Iterator[FieldProblem]:
        """Every reason to refuse the spec for a given run; pointers are relative to the spec."""
        lengths = list(self.length_problems(run))
        yield from lengths
        if not lengths and (found := self.collection_steps(run)).count_until(run.total_steps) < 2:
            message = "an ensemble needs at least two members; the second would be collected at step "
            message += f"{found.first + found.every:,}, but the run ends after {run.total_steps:,}"
            yield FieldProblem("", message, "train longer, or collect more often")
