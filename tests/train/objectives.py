"""Objectives of the losses and metrics that are built in."""

from core.engine.datasets.standardizer import Standardizer
from core.engine.evaluation.objective import MeasuredObjective, build_objective
from tests.train.runs import job


def classification(*metrics: str) -> MeasuredObjective:
    """Cross-entropy, and these metrics."""
    return build_objective(job(metrics=metrics), None)


def regression(*metrics: str, scale: Standardizer | None = None) -> MeasuredObjective:
    """Mean squared error, and these metrics; `scale` is what standardised the targets."""
    return build_objective(job(loss="mse", metrics=metrics), scale)
