from bisect import bisect_right
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from core.errors import FieldProblem
from core.recipe.component import Positive
from core.recipe.duration import Duration, RunLength
from core.recipe.schedules.base import LearningRate, ScheduleSpec, milestone_problems, power_or_inf


class MultiStep(ScheduleSpec):
    """lr(u) = lr gamma^(number of milestones <= u). Milestones are in steps after warm-up."""

    summary: ClassVar[str] = "The rate times gamma at each of a list of milestones."
    name: Literal["multistep"] = "multistep"
    milestones: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=100)]
    gamma: Positive = 0.1

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        steps = [milestone.steps(run) for milestone in self.milestones]
        return lambda u: lr * power_or_inf(self.gamma, bisect_right(steps, u))

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        return milestone_problems("milestones", self.milestones, run)
