"""What tests ask of specs: their rate, their warnings, and analyses from plain values."""

import json
from collections.abc import Mapping
from typing import Any

from core.recipe.analyses import AnyAnalysis
from core.recipe.checks.spec import warnings
from core.recipe.component import SpecWarning
from core.recipe.learning_rate import learning_rate_plan
from core.recipe.parse import parse_analysis
from core.recipe.schedules.base import LearningRate
from core.recipe.spec import JobSpec


def rate_of(spec: JobSpec) -> LearningRate:
    """T -> the learning rate of the t-th optimizer step, while the schedule has heard nothing."""
    return learning_rate_plan(spec, spec.shape().run).rate_function()


def warnings_of(spec: JobSpec) -> tuple[SpecWarning, ...]:
    return tuple(warnings(spec, spec.shape()))


def analysis_of(fields: Mapping[str, Any]) -> AnyAnalysis:
    """An analysis as it is submitted. Raises InvalidSpec."""
    return parse_analysis(json.dumps(fields).encode(), dict(fields))
