"""The averaging methods: policies for when to collect weights; the engine alone reads and writes the weights."""

from typing import Annotated

from pydantic import Field

from core.recipe.averaging.base import AveragingSpec, CollectionSteps
from core.recipe.averaging.checkpoints import CheckpointEnsemble
from core.recipe.averaging.ema import EMA, EmaPhase
from core.recipe.averaging.ensemble import EnsembleSpec
from core.recipe.averaging.fge import FGE
from core.recipe.averaging.snapshot import Snapshot
from core.recipe.averaging.swa import SWA, SwaPhase
from core.recipe.averaging.swag import SWAG

Ensemble = Annotated[
    Snapshot
    | FGE
    | CheckpointEnsemble,
    Field(discriminator="method"),
]  # fmt: skip
"""The ensembles, selected by their method."""

AVERAGING: tuple[type[AveragingSpec], ...] = (SWA, SWAG, EMA, Snapshot, FGE, CheckpointEnsemble)

__all__ = [
    "AVERAGING",
    "EMA",
    "SWA",
    "SWAG",
    "AveragingSpec",
    "CollectionSteps",
    "EmaPhase",
    "Ensemble",
    "EnsembleSpec",
    "SwaPhase",
]
