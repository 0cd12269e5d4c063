"""Checkpoint ensembles: the last few networks of any run."""

from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, Literal

from core.errors import FieldProblem
from core.recipe.averaging.base import CollectionSteps
from core.recipe.averaging.ensemble import EnsembleSpec, LearningRate, Members
from core.recipe.duration import Duration, RunLength


class CheckpointEnsemble(EnsembleSpec):
    """The networks after `every`, 2 `every`, … of the run, the last `members` of them, whatever the schedule is."""

    name: ClassVar[str] = "checkpoints"
    summary: ClassVar[str] = "Checkpoint ensemble: the predictions of the last few networks of one run, averaged."
    paper: ClassVar[str | None] = "Chen, Lundberg & Lee 2017, arXiv:1710.03282"
    sets_rate: ClassVar[bool] = False

    method: Literal["checkpoints"] = "checkpoints"
    every: Duration = Duration(Fraction(1), "ep")
    members: Members | None = 5

    def collection_steps(self, run: RunLength) -> CollectionSteps:
        every = self.every.steps(run)
        return CollectionSteps(every, every)

    def override_schedule(self, base: LearningRate, run: RunLength, optimizer_lr: float) -> LearningRate:
        return base

    def length_problems(self, run: RunLength) -> Iterator[FieldProblem]:
        if self.every.steps(run) < 1:
            yield FieldProblem("/every", f"{self.every} is less than one optimizer step here", "make it longer")
