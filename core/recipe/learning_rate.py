"""The learning rate of one run: the schedule, the averaging method that sets the rate after it, and `stop_lr`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

from core.recipe.averaging import SWA, Ensemble, SwaPhase
from core.recipe.duration import RunLength
from core.recipe.optimizers.base import OptimizerSpec
from core.recipe.schedules.base import LearningRate, Momentum, PlateauState, ScheduleSpec, first_below


class RateFields(Protocol):
    """The fields of a job or a preview that determine its learning rate."""

    @property
    def schedule(self) -> ScheduleSpec: ...

    @property
    def optimizer(self) -> OptimizerSpec: ...

    @property
    def stop_lr(self) -> float | None: ...

    @property
    def swa(self) -> SWA | None: ...

    @property
    def ensemble(self) -> Ensemble | None: ...


@dataclass(frozen=True, slots=True)
class LearningRatePlan:
    """The learning rate as a training, a preview and the checks of a job use it; all methods are pure.

    An averaging method may set the learning rate from some step on; the schedule has no effect after that step.
    """

    schedule: ScheduleSpec
    optimizer: OptimizerSpec
    run: RunLength
    stop_lr: float | None = None
    swa: SwaPhase | None = None
    ensemble: Ensemble | None = None

    @property
    def scheduled_steps(self) -> int:
        """The number of steps in which the schedule sets the learning rate."""
        starts = [self.swa.start] if self.swa else []
        if self.ensemble and (start := self.ensemble.sets_rate_from(self.run)) is not None:
            starts.append(start)
        return min([self.run.total_steps, *starts])

    def rate_function(self, reductions: int = 0, factor: float = 1.0) -> LearningRate:
        """T -> learning rate of step t, after `reductions` on plateau, times `factor`."""
        schedule, lr = self.schedule, self.optimizer.lr
        base = self.optimizer.adjust_rate(schedule.compile_rate(lr, self.run))
        whole = (lambda t: schedule.reduced_rate(base(t), reductions)) if reductions else base
        if self.ensemble:
            whole = self.ensemble.override_schedule(whole, self.run, lr)
        if self.swa:
            whole = self.swa.override_schedule(whole)
        return whole if factor == 1 else lambda t: factor * whole(t)

    def cycled_momentum(self) -> Momentum | None:
        """T -> momentum if the schedule cycles it; the optimizer's own where averaging sets the learning rate."""
        own = self.optimizer.own_momentum() or 0.0
        cycled, end = self.schedule.cycled_momentum(own, self.run), self.scheduled_steps
        return (lambda t: cycled(t) if t < end else own) if cycled else None

    def after_evaluation(self, state: PlateauState, metrics: Mapping[str, float], done: int) -> PlateauState:
        """The schedule's state after an evaluation at `done` steps; unchanged where averaging sets the rate."""
        value = metrics.get(self.schedule.monitored_series() or "")
        if value is None or not self.schedule.warmup.steps(self.run) <= done <= self.scheduled_steps:
            return state
        return self.schedule.after_evaluation(state, value)

    def effective_evaluations(self, every: int) -> int:
        """The number of evaluations, one each `every` steps, that can still change the rate of a later step."""
        deaf = max(0, self.schedule.warmup.steps(self.run) - 1)
        return max(0, self.scheduled_steps - 1) // every - deaf // every

    def cycle_ends(self) -> Iterator[int]:
        """The number of complete steps at the end of each of its cycles, in ascending order."""
        return takewhile(lambda end: end <= self.scheduled_steps, self.schedule.cycle_ends(self.run))

    def stop_step(self, rate: LearningRate, after: int = 0) -> int | None:
        """The first step from `after` on, without warm-up, whose rate is below `stop_lr`: the run ends before it."""
        if self.stop_lr is None:
            return None
        stretches = (
            (max(start, after), min(end, self.scheduled_steps))
            for start, end in self.schedule.unimodal_ranges(self.run)
        )
        return first_below(self.stop_lr, rate, (each for each in stretches if each[0] < each[1]))


def learning_rate_plan(fields: RateFields, run: RunLength) -> LearningRatePlan:
    """The learning rate of a job or of a preview."""
    phase = fields.swa.phase_in_run(run, fields.optimizer.lr) if fields.swa else None
    return LearningRatePlan(fields.schedule, fields.optimizer, run, fields.stop_lr, phase, fields.ensemble)
