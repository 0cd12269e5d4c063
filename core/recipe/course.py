"""How the learning rate goes through one run: the schedule, what owns the rate after it, and where it gets too low."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from core.recipe.duration import RunLength
from core.recipe.schedules.base import Heard, LearningRate, Momentum, ScheduleSpec, first_below


@dataclass(frozen=True, slots=True)
class Course:
    """What a training, a preview and the checks of a job ask alike; all of it pure.

    From step `owned_from` on the schedule is out of it: `over` (of a method of averaging) says the rate.
    """

    schedule: ScheduleSpec
    lr: float
    run: RunLength
    stop_lr: float | None = None
    over: Callable[[LearningRate], LearningRate] | None = None
    owned_from: int | None = None

    @property
    def scheduled(self) -> int:
        """Steps of the run in which the schedule says the rate."""
        return self.run.total_steps if self.owned_from is None else min(self.owned_from, self.run.total_steps)

    def rate(self, reductions: int = 0, factor: float = 1.0) -> LearningRate:
        """T -> learning rate, after so many reductions by what the schedule heard, all of it times `factor`."""
        schedule, base = self.schedule, self.schedule.compile(self.lr, self.run)
        rate = (lambda t: schedule.reduced(base(t), reductions)) if reductions else base
        whole = self.over(rate) if self.over else rate
        return whole if factor == 1 else lambda t: factor * whole(t)

    def momentum(self, own: float) -> Momentum | None:
        """T -> momentum if the schedule cycles it; `own` is the optimizer's, and what counts after the schedule."""
        cycled, end = self.schedule.momentum(own, self.run), self.scheduled
        return (lambda t: cycled(t) if t < end else own) if cycled else None

    def hears(self, heard: Heard, metrics: Mapping[str, float], done: int) -> Heard:
        """What the schedule knows after an evaluation when `done` steps are complete, while it says the rate."""
        value = metrics.get(self.schedule.watches() or "")
        if value is None or not self.schedule.warmup.steps(self.run) <= done <= self.scheduled:
            return heard
        return self.schedule.hears(heard, value)

    def evaluations(self, every: int) -> int:
        """How many evaluations, one each `every` steps, the schedule hears in time to change another step's rate."""
        deaf = max(0, self.schedule.warmup.steps(self.run) - 1)
        return max(0, self.scheduled - 1) // every - deaf // every

    def cycles(self) -> Iterator[int]:
        """How many steps are complete at the end of each of its cycles, rising."""
        return takewhile(lambda end: end <= self.scheduled, self.schedule.cycles(self.run))

    def stop(self, rate: LearningRate, after: int = 0) -> int | None:
        """The first step from `after` on, warm-up apart, whose rate is below `stop_lr`: the run ends before it."""
        if self.stop_lr is None:
            return None
        stretches = ((max(start, after), min(end, self.scheduled)) for start, end in self.schedule.stretches(self.run))
        return first_below(self.stop_lr, rate, (each for each in stretches if each[0] < each[1]))
