"""When a run ends before its budget, and which of its weights it is judged by."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field

from core.recipe.component import NonNegative, Spec
from core.recipe.duration import Duration

Mode = Literal["min", "max"]
Monitor = Annotated[str, Field(min_length=1, max_length=64)]
MODES: dict[str, Mode] = {"loss": "min", "mae": "min", "accuracy": "max", "r2": "max"}
"""Which way is better, by what is measured."""


def way_of(monitor: str) -> Mode:
    """Which way a series is better: val.accuracy -> max."""
    return MODES.get(monitor.rpartition(".")[2], "min")


class EarlyStopping(Spec):
    """Ends the run after exactly `patience` evaluations in a row without improvement, and keeps the best weights.

    A value improves on the best if it is smaller (or, for `max`, larger) by more than `min_delta`; what is no number
    never does. Evaluations before `start_from` do not count. With `restore_best` the results that a run reports as its
    own are those of the best weights, however it ended.
    """

    monitor: Monitor = "val.loss"
    mode: Mode | None = None
    patience: Annotated[int, Field(ge=1, le=10**9)] = 10
    min_delta: NonNegative = 0.0
    start_from: Duration = Duration.of_steps(0)
    restore_best: bool = True

    def way(self) -> Mode:
        """Which way is better: as said, or as the metric has it."""
        return self.mode or way_of(self.monitor)

    def resolved(self) -> Self:
        """With `mode` written out."""
        return self.model_copy(update={"mode": self.way()})

    def improves(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than the `best` so far (None: there is none yet)."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value < best - self.min_delta if self.way() == "min" else value > best + self.min_delta
