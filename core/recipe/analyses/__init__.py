"""The analyses. A new one: its file, its line in the union, and its module in core/engine/analysis."""

from typing import Annotated, get_args

from pydantic import Field

from core.recipe.analyses.assembly import Assembly
from core.recipe.analyses.average import Average
from core.recipe.analyses.base import AnalysisSpec, AnyAnalysis, ResultsSpec, SplitName
from core.recipe.analyses.connect import Connect
from core.recipe.analyses.critical_point import CriticalPoint
from core.recipe.analyses.gradient_noise import GradientNoise
from core.recipe.analyses.interpolation import Interpolation
from core.recipe.analyses.landscape import Landscape
from core.recipe.analyses.lr_range import LrRange
from core.recipe.analyses.sharpness import Sharpness
from core.recipe.analyses.trajectory import Trajectory

Analysis = Annotated[
    Landscape
    | Trajectory
    | Interpolation
    | Connect
    | Average
    | Sharpness
    | CriticalPoint
    | LrRange
    | GradientNoise
    | Assembly,
    Field(discriminator="kind"),
]  # fmt: skip


def analysis_classes() -> dict[str, type[AnyAnalysis]]:
    """Kind -> class."""
    members = get_args(get_args(Analysis)[0])
    return {str(each.model_fields["kind"].default): each for each in members}


__all__ = ["Analysis", "AnalysisSpec", "AnyAnalysis", "ResultsSpec", "SplitName", "analysis_classes"]
