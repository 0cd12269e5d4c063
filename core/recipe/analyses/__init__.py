"""The analyses. A new one: its file, its line in the union, and its module in core/engine/analysis."""

from typing import Annotated

from pydantic import Field, TypeAdapter

from core.recipe.analyses.average import Average
from core.recipe.analyses.base import AnalysisSpec, Split
from core.recipe.analyses.connect import Connect
from core.recipe.analyses.critical_point import CriticalPoint
from core.recipe.analyses.gradient_noise import GradientNoise
from core.recipe.analyses.lr_range import LrRange
from core.recipe.analyses.sharpness import Sharpness

Analysis = Annotated[
    Average
    | Sharpness
    | CriticalPoint
    | Connect
    | LrRange
    | GradientNoise,
    Field(discriminator="kind"),
]  # fmt: skip


def read_analysis(text: str | bytes) -> AnalysisSpec:
    """An analysis from its JSON, strictly. Raises pydantic's ValidationError with every problem found."""
    return TypeAdapter(Analysis).validate_json(text)


__all__ = ["Analysis", "AnalysisSpec", "Split", "read_analysis"]
