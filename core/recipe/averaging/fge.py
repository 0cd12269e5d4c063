"""Fast Geometric Ensembling: short cycles of the learning rate late in a run, a member in the middle of each."""

from collections.abc import Iterator
from fractions import Fraction
from typing import ClassVar, Literal, Self

from core.errors import FieldProblem
from core.recipe.averaging.base import CollectionSteps, late_start
from core.recipe.averaging.ensemble import EnsembleSpec, LearningRate
from core.recipe.component import NonNegative, Positive
from core.recipe.duration import Duration, RunLength


class FGE(EnsembleSpec):
    """From `start` on the rate falls and rises between `lr_1`, the largest, and `lr_2` in every `cycle` of c steps.

    In the i-th step of a cycle, i = 1, 2, …, c, with s = i / c: (1 - 2 s) lr_1 + 2 s lr_2 for s <= 1/2, else
    (2 - 2 s) lr_2 + (2 s - 1) lr_1. A member is collected in the middle, after the step at lr_2, so c is even. Before
    `start` the job's schedule applies. By default `lr_1` is half of the optimizer's rate and `lr_2` a fifth of `lr_1`:
    the paper has 0.05 and 0.01 where the run began with 0.1. A `start` given as a share of the run is rounded up to the
    end of its epoch where `cycle` is in epochs.
    """

    name: ClassVar[str] = "fge"
    summary: ClassVar[str] = "Fast Geometric Ensembling: a member at the low point of each short, triangular cycle."
    paper: ClassVar[str | None] = "Garipov et al. 2018, arXiv:1802.10026"

    method: Literal["fge"] = "fge"
    start: Duration = Duration(Fraction(4, 5), "run")
    cycle: Duration = Duration(Fraction(2), "ep")
    lr_1: Positive | None = None
    lr_2: NonNegative | None = None

    def rate_bounds(self, optimizer_lr: float) -> tuple[float, float]:
        """(lr_1, lr_2)."""
        highest = self.lr_1 or optimizer_lr / 2
        return highest, highest / 5 if self.lr_2 is None else self.lr_2

    def collection_steps(self, run: RunLength) -> CollectionSteps:
        cycle = self.cycle.steps(run)
        return CollectionSteps(late_start(self.start, self.cycle, run) + cycle // 2, cycle)

    def sets_rate_from(self, run: RunLength) -> int | None:
        return late_start(self.start, self.cycle, run)

    def override_schedule(self, base: LearningRate, run: RunLength, optimizer_lr: float) -> LearningRate:
        start, cycle = late_start(self.start, self.cycle, run), self.cycle.steps(run)
        highest, lowest = self.rate_bounds(optimizer_lr)

        def rate(t: int) -> float:
            done = t - start
            if done < 0:
                return base(t)
            height = abs(1 - 2 * (done % cycle + 1) / cycle)  # 1 at lr_1, 0 at lr_2
            return height * highest + (1 - height) * lowest

        return rate

    def length_problems(self, run: RunLength) -> Iterator[FieldProblem]:
        cycle = self.cycle.steps(run)
        if cycle < 2 or cycle % 2:
            message = f"a member is collected in the middle of each cycle, and {cycle:,} optimizer steps have none"
            yield FieldProblem("/cycle", message, f'an even number of steps, for instance "{cycle + 1}st"')

    def problems(self, run: RunLength, optimizer_lr: float) -> Iterator[FieldProblem]:
        yield from super().problems(run, optimizer_lr)
        highest, lowest = self.rate_bounds(optimizer_lr)
        if lowest > highest:
            message = f"lr_1, {highest:g}, is the largest rate of a cycle and lr_2, {lowest:g}, the smallest"
            yield FieldProblem("/lr_2", message, "swap the two")

    def resolved(self, run: RunLength, optimizer_lr: float) -> Self:
        lr_1, lr_2 = self.rate_bounds(optimizer_lr)
        return super().resolved(run, optimizer_lr).model_copy(update={"lr_1": lr_1, "lr_2": lr_2})
