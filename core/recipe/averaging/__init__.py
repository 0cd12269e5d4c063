"""The averaging methods: policies that say when to collect weights; the engine owns the one place that touches them."""

from core.recipe.averaging.base import AveragingSpec
from core.recipe.averaging.swa import SWA, SwaPhase

AVERAGING: tuple[type[AveragingSpec], ...] = (SWA,)

__all__ = ["AVERAGING", "SWA", "AveragingSpec", "SwaPhase"]
