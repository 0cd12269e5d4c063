"""What ends a run before its budget. A run has one reason; the first in this order, where two come together."""

from collections.abc import Callable

from core.engine.run import Run
from core.recipe.stopping import StopReason


def by_evaluation(run: Run) -> StopReason | None:
    """Whether the latest evaluation was good enough, or the last of too many that were no better."""
    target = run.spec.target
    if target and target.metric in run.standing.metrics and target.is_reached(run.standing.metrics[target.metric]):
        return "target"
    return "early_stopping" if run.best and run.best.is_exhausted else None


def by_step(run: Run, seconds: Callable[[], float]) -> StopReason | None:
    """Whether the next rate is too low, or the time is over; `seconds()` is how long the run has been trained."""
    if run.rate.below_stop_lr(run.standing.step):
        return "stop_lr"
    limit = run.spec.seconds
    return "time_limit" if limit is not None and seconds() >= limit else None
