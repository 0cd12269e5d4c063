"""Early stopping, targets, and rollback after non-finite numbers."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field

from core.recipe.component import NonNegative, Spec
from core.recipe.duration import Duration
from core.recipe.metrics import Mode
from core.recipe.monitor import Monitor, default_mode

StopReason = Literal["completed", "early_stopping", "stop_lr", "target", "time_limit", "cancelled", "non_finite"]
"""Why a run ended; a run has one reason. Of several at the same step the first of these counts: completed, target,
early_stopping, stop_lr, time_limit.
"""


class EarlyStopping(Spec):
    """Ends the run after exactly `patience` evaluations in a row without improvement, and keeps the best weights.

    A value improves on the best if it is smaller (or, for `max`, larger) by more than `min_delta`; a value that is not
    finite never improves. Evaluations before `start_from` do not count. The kept weights are the monitored ones:
    `swa.val.loss` keeps the best average. With `restore_best` the results of the run are those of the best weights,
    whatever ended it.
    """

    monitor: Monitor = "val.loss"
    mode: Mode | None = None
    patience: Annotated[int, Field(ge=1, le=10**9)] = 10
    min_delta: NonNegative = 0.0
    start_from: Duration = Duration.of_steps(0)
    restore_best: bool = True

    def effective_mode(self) -> Mode:
        """Whether lower or higher is better: as given, or by the metric."""
        return self.mode or default_mode(self.monitor)

    def monitored_weights(self) -> str:
        """The weights that are monitored and kept, by their name in results."""
        *weights, _split, _metric = self.monitor.split(".")
        return ".".join(weights) or "base"

    def resolved(self) -> Self:
        """The same spec with `mode` filled in."""
        return self.model_copy(update={"mode": self.effective_mode()})

    def is_improvement(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than the `best` so far (None: there is none yet)."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value < best - self.min_delta if self.effective_mode() == "min" else value > best + self.min_delta


class Target(Spec):
    """Ends the run at the first evaluation that is at least as good as `value`. Lower is better for `loss` and `mae`,
    higher for `accuracy` and `r2`.
    """

    metric: Monitor
    value: Annotated[float, Field(allow_inf_nan=False)]

    def is_reached(self, value: float) -> bool:
        """Whether an evaluation is good enough."""
        return value <= self.value if default_mode(self.metric) == "min" else value >= self.value


class Rollback(Spec):
    """When the loss or the weights are no longer finite, the run rolls back, at most `times` times: it returns to its
    last rollback point (one every `checkpoints.every` steps, and one at the start), withdraws the metrics reported
    since, and multiplies every learning rate from there on by `factor`.
    """

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    times: Annotated[int, Field(ge=1, le=100)] = 3
