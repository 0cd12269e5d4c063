"""The conditions that end a run before its budget. A run has one stop reason: the first in this order."""

from collections.abc import Callable

from core.engine.run import Run
from core.recipe.stopping import StopReason


def by_evaluation(run: Run) -> StopReason | None:
    """The condition that the latest evaluation meets: the target is reached, or the patience is spent."""
    target = run.spec.target
    if (
        target
        and target.metric in run.train_state.metrics
        and target.is_reached(run.train_state.metrics[target.metric])
    ):
        return "target"
    return "early_stopping" if run.best and run.best.is_exhausted else None


def by_step(run: Run, seconds: Callable[[], float]) -> StopReason | None:
    """The condition met after a step: the next rate is below stop_lr, or `seconds()` of training reach the limit."""
    if run.rate.below_stop_lr(run.train_state.step):
        return "stop_lr"
    limit = run.spec.seconds
    return "time_limit" if limit is not None and seconds() >= limit else None
