from bisect import bisect_right
from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from core.errors import FieldProblem
from core.recipe.component import DEFERRED, cross_field_error
from core.recipe.duration import Duration, RunLength
from core.recipe.plugins import JoinPlugins
from core.recipe.schedules.base import LearningRate, Momentum, ScheduleSpec, milestone_problems
from core.recipe.schedules.step_schedules import StepSchedule


class Sequence(ScheduleSpec):
    """The first schedule until milestones[0], the second until milestones[1], and so on; the last to the end.

    Each has its own step count, its own warm-up, and its own run: `"0.5run"` inside it is half of its part of the run,
    and a length that defaults to the run fills this part. Milestones are in steps after the sequence's own warm-up.
    """

    model_config = DEFERRED
    summary: ClassVar[str] = "Several schedules one after the other, each with its own step count."
    name: Literal["sequence"] = "sequence"
    schedules: Annotated[
        tuple[Annotated[StepSchedule, Field(discriminator="name"), JoinPlugins("basin.schedules")], ...],
        Field(min_length=2, max_length=16),
    ]
    milestones: Annotated[tuple[Duration, ...], Field(min_length=1, max_length=15)]

    @model_validator(mode="after")
    def one_milestone_between_two(self) -> Self:
        if len(self.milestones) != len(self.schedules) - 1:
            message = f"{len(self.schedules)} schedules have {len(self.schedules) - 1} milestones between them"
            raise cross_field_error(FieldProblem("/milestones", f"{message}, not {len(self.milestones)}"))
        return self

    def member_starts(self, run: RunLength) -> list[int]:
        """The step at which each schedule begins, counted after the sequence's warm-up."""
        return [0, *(milestone.steps(run) for milestone in self.milestones)]

    def member_runs(self, run: RunLength) -> list[RunLength]:
        """The part of the run of each schedule; at least one step."""
        starts = self.member_starts(run)
        known = [RunLength(run.steps_per_epoch, max(1, after - start)) for start, after in pairwise(starts)]
        left = run.total_steps - self.warmup.steps(run) - starts[-1]
        return [*known, RunLength(run.steps_per_epoch, max(1, left), run.bounded)]

    def placed_members(self, run: RunLength) -> Iterator[tuple[int, ScheduleSpec, RunLength]]:
        """(step of the run at which it begins, schedule, its part of the run) of each schedule."""
        warm = self.warmup.steps(run)
        for start, each, part in zip(self.member_starts(run), self.schedules, self.member_runs(run), strict=True):
            yield warm + start, each, part

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        starts = self.member_starts(run)
        curves = [each.compile_rate(lr, part) for each, part in zip(self.schedules, self.member_runs(run), strict=True)]

        def rate(u: int) -> float:
            at = bisect_right(starts, u) - 1
            return curves[at](u - starts[at])

        return rate

    def warmup_target(self, lr: float) -> float:
        return self.schedules[0].warmup_target(lr)

    def cycled_momentum(self, own: float, run: RunLength) -> Momentum | None:
        starts, cycled = [], []
        for start, each, part in self.placed_members(run):
            starts.append(start)
            cycled.append(each.cycled_momentum(own, part))
        if not any(cycled):
            return None

        def momentum(t: int) -> float:
            at = max(0, bisect_right(starts, t) - 1)
            found = cycled[at]
            return found(max(0, t - starts[at])) if found else own

        return momentum

    def cycle_ends(self, run: RunLength) -> Iterator[int]:
        for start, each, part in self.placed_members(run):
            yield from (start + end for end in each.cycle_ends(part))

    def unimodal_ranges(self, run: RunLength) -> Iterator[tuple[int, int]]:
        for start, each, part in self.placed_members(run):
            yield from ((start + first, start + last) for first, last in each.unimodal_ranges(part))

    def open_lengths(self) -> Iterator[str]:
        last = len(self.schedules) - 1
        yield from (f"/schedules/{last}{pointer}" for pointer in self.schedules[last].open_lengths())

    def resolved(self, run: RunLength, lr: float) -> Self:
        parts = zip(self.schedules, self.member_runs(run), strict=True)
        return self.model_copy(update={"schedules": tuple(each.resolved(part, lr) for each, part in parts)})

    def problems(self, run: RunLength) -> Iterator[FieldProblem]:
        late = list(milestone_problems("milestones", self.milestones, run))
        end = run.total_steps - self.warmup.steps(run)
        if not late and self.member_starts(run)[-1] >= end:
            message = (
                f"the last schedule would begin at step {self.member_starts(run)[-1]:,} of {end:,}, so it never begins"
            )
            late.append(FieldProblem(f"/milestones/{len(self.milestones) - 1}", message, "begin it earlier"))
        yield from late
        for index, (each, part) in enumerate(zip(self.schedules, self.member_runs(run), strict=True)):
            for problem in () if late else each.problems(part):
                yield FieldProblem(f"/schedules/{index}{problem.pointer}", problem.message, problem.hint)
