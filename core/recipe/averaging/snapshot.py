"""Snapshot ensembles: one run converges to several minima, and its weights are kept at each."""

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.averaging.base import CollectionSteps
from core.recipe.averaging.ensemble import EnsembleSpec, LearningRate
from core.recipe.component import Positive, cross_field_error
from core.recipe.duration import RunLength


class Snapshot(EnsembleSpec):
    """The rate falls by a cosine from `lr` (by default the optimizer's) in each of `cycles` cycles, with a snapshot at
    the end of each.

    lr(u) = lr / 2 (cos(pi u / C) + 1) in the u-th step of a cycle of C steps, u = 0, 1, …: the first rate is `lr`, the
    last is above 0, and the next cycle starts at `lr` again. All cycles have floor(T / cycles) of the run's T steps;
    the first has the remainder too. (With ceil(T / cycles), as in the paper, the last cycle is cut short and its
    snapshot is taken at a high rate.) This replaces the schedule of the job.
    """

    name: ClassVar[str] = "snapshot"
    summary: ClassVar[str] = (
        "Snapshot ensemble: cosine cycles, a member at the end of each, their predictions averaged."
    )
    paper: ClassVar[str | None] = "Huang et al. 2017, arXiv:1704.00109"

    divides_run: ClassVar[bool] = True
    method: Literal["snapshot"] = "snapshot"
    cycles: Annotated[int, Field(ge=2, le=1000)] = 5
    lr: Positive | None = None

    @model_validator(mode="after")
    def as_many_as_cycles(self) -> Self:
        if self.members is not None and self.members > self.cycles:
            message = f"{self.cycles} cycles give {self.cycles} members, not {self.members}"
            raise cross_field_error(FieldProblem("/members", message, "give more cycles, or keep fewer members"))
        return self

    def cycle_steps(self, run: RunLength) -> int:
        """Optimizer steps in every cycle but the first."""
        return run.total_steps // self.cycles

    def collection_steps(self, run: RunLength) -> CollectionSteps:
        length = self.cycle_steps(run)
        return CollectionSteps(run.total_steps - (self.cycles - 1) * length, length)

    def sets_rate_from(self, run: RunLength) -> int | None:
        return 0

    def override_schedule(self, base: LearningRate, run: RunLength, optimizer_lr: float) -> LearningRate:
        half = (self.lr or optimizer_lr) / 2
        first, length = self.collection_steps(run).first, self.cycle_steps(run)

        def rate(t: int) -> float:
            share = t / first if t < first else (t - first) % length / length
            return half * (1 + math.cos(math.pi * share))

        return rate

    def length_problems(self, run: RunLength) -> Iterator[FieldProblem]:
        if self.cycle_steps(run) < 1:
            message = f"{self.cycles} cycles do not fit into {run.total_steps:,} optimizer steps"
            yield FieldProblem("/cycles", message, "train longer, or in fewer cycles")

    def resolved(self, run: RunLength, optimizer_lr: float) -> Self:
        return super().resolved(run, optimizer_lr).model_copy(update={"lr": self.lr or optimizer_lr})
