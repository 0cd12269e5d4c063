"""The learning rate of every step, and the state that it depends on: evaluations (plateau schedules) and rollbacks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from core.recipe.learning_rate import LearningRatePlan
from core.recipe.schedules.base import PlateauState


class Rate:
    """t -> the rate of the t-th optimizer step, t = 0, 1, …; a pure function of t and of what the run did before t."""

    prefix = "rate."

    def __init__(self, lr_plan: LearningRatePlan, slower: float = 1.0) -> None:
        """All rates are multiplied by `slower` at every rollback."""
        self._course = lr_plan
        self._slower = slower
        self._heard = PlateauState()
        self.rollbacks, self._since = 0, 0
        self._cycled = lr_plan.cycled_momentum()
        self._update_rate_function()

    def __call__(self, t: int) -> float:
        return self._rate(t)

    def momentum_at(self, t: int) -> float | None:
        """The momentum of step t, where the schedule cycles it."""
        return self._cycled(t) if self._cycled else None

    def record_evaluation(self, metrics: Mapping[str, float], done: int) -> None:
        """Record the evaluation after `done` steps; a plateau schedule may lower the rates that follow."""
        before, self._heard = self._heard, self._course.after_evaluation(self._heard, metrics, done)
        if self._heard.reductions > before.reductions:
            self._since = done
            self._update_rate_function()

    def below_stop_lr(self, done: int) -> bool:
        """Whether the rate of the next step, after `done` steps, is below the job's stop_lr."""
        return self._end is not None and done >= self._end

    def roll_back(self, rollbacks: int, step: int) -> None:
        """From `step` on, the rates are those after `rollbacks` rollbacks."""
        self.rollbacks, self._since = rollbacks, step
        self._update_rate_function()

    def _update_rate_function(self) -> None:
        self._rate = self._course.rate_function(self._heard.reductions, self._slower**self.rollbacks)
        self._end = self._course.stop_step(self._rate, self._since)

    def tensors(self) -> dict[str, Tensor]:
        """Empty if rates depend on the step alone; else the counters, int64 (6,), and the best value, float64 ()."""
        if self._course.schedule.monitored_series() is None and self._slower == 1:
            return {}
        heard = self._heard
        past = (heard.best is not None, heard.wait, heard.cooldown, heard.reductions, self.rollbacks, self._since)
        return {
            "rate.past": torch.tensor(past, dtype=torch.int64),
            "rate.best": torch.tensor(0.0 if heard.best is None else heard.best, dtype=torch.float64),
        }

    def expected(self, found: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        return self.tensors()

    def restore(self, found: Mapping[str, Tensor]) -> None:
        """The inverse of tensors()."""
        if not found:
            return
        known, wait, cooldown, reductions, self.rollbacks, self._since = found["rate.past"].tolist()
        self._heard = PlateauState(float(found["rate.best"]) if known else None, wait, cooldown, reductions)
        self._update_rate_function()
