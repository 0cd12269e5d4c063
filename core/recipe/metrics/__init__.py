"""The metrics. A new one: its file, its line in the union, and a builder in core/engine/evaluation/metrics.py."""

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field

from core.recipe.facts import Task
from core.recipe.metrics.accuracy import Accuracy
from core.recipe.metrics.base import MetricSpec, Mode
from core.recipe.metrics.mae import MeanAbsoluteError
from core.recipe.metrics.r2 import R2
from core.recipe.plugins import JoinPlugins

Metric = Annotated[
    Accuracy
    | MeanAbsoluteError
    | R2,
    Field(discriminator="name"),
    JoinPlugins("basin.metrics", by_name=True),
]  # fmt: skip

DEFAULT_METRICS: Final[Mapping[Task, tuple[MetricSpec, ...]]] = {
    "classification": (Accuracy(),),
    "regression": (MeanAbsoluteError(), R2()),
    "function": (),
    "language_model": (),
}
"""Task -> the metrics of a job that names none."""

__all__ = ["DEFAULT_METRICS", "Metric", "MetricSpec", "Mode"]
