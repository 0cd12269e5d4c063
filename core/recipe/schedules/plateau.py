import math
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from core.recipe.component import NonNegative
from core.recipe.duration import RunLength
from core.recipe.metrics import Mode
from core.recipe.monitor import Monitor, default_mode
from core.recipe.schedules.base import LearningRate, PlateauState, ScheduleSpec

ThresholdMode = Literal["rel", "abs"]


class Plateau(ScheduleSpec):
    """max(min_lr, lr factor^k) after k reductions. A reduction follows exactly `patience` evaluations of `monitor` in a
    row that did not improve on the best by more than the threshold. `cooldown` evaluations after a reduction do not
    count, nor do those during warm-up.

    torch reduces after patience + 1 of them; Keras after patience, as here. `rel` means threshold |best|, so that it
    has the right sign for negative values too, for which torch never finds an improvement. There is no eps: torch does
    not reduce a rate that would change by less than 1e-8.
    """

    summary: ClassVar[str] = "The rate times factor whenever a validation metric has stopped improving."
    paper: ClassVar[str | None] = "torch.optim.lr_scheduler.ReduceLROnPlateau; Keras' ReduceLROnPlateau"
    name: Literal["plateau"] = "plateau"
    monitor: Monitor = "val.loss"
    mode: Mode | None = None
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1, le=10**9)] = 10
    threshold: NonNegative = 1e-4
    threshold_mode: ThresholdMode = "rel"
    cooldown: Annotated[int, Field(ge=0, le=10**9)] = 0
    min_lr: NonNegative = 0.0

    def rate_after_warmup(self, lr: float, run: RunLength, rest: int) -> LearningRate:
        return lambda _: lr

    def resolved(self, run: RunLength, lr: float) -> Self:
        return self.model_copy(update={"mode": self.effective_mode()})

    def monitored_series(self) -> str | None:
        return self.monitor

    def effective_mode(self) -> Mode:
        """Whether lower or higher is better: as given, or by the metric."""
        return self.mode or default_mode(self.monitor)

    def is_improvement(self, value: float, best: float | None) -> bool:
        """Whether `value` improves on the `best` so far (None: there is none yet); a non-finite value never does."""
        if best is None or not math.isfinite(value):
            return math.isfinite(value)
        margin = self.threshold * (abs(best) if self.threshold_mode == "rel" else 1.0)
        return value < best - margin if self.effective_mode() == "min" else value > best + margin

    def after_evaluation(self, state: PlateauState, value: float) -> PlateauState:
        better = self.is_improvement(value, state.best)
        best = value if better else state.best
        if state.cooldown:
            return replace(state, best=best, wait=0, cooldown=state.cooldown - 1)
        wait = 0 if better else state.wait + 1
        if wait < self.patience:
            return replace(state, best=best, wait=wait)
        return PlateauState(best=best, cooldown=self.cooldown, reductions=state.reductions + 1)

    def most_reductions(self, evaluations: int) -> int:
        return max(0, (evaluations - 1 + self.cooldown) // self.between_reductions())  # the first is the best so far

    def between_reductions(self) -> int:
        return self.patience + self.cooldown

    def reduced_rate(self, rate: float, reductions: int) -> float:
        return max(self.min_lr, rate * self.factor**reductions) if reductions else rate
