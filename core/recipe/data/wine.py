from typing import ClassVar, Literal

from core.recipe.data.base import DataSpec
from core.recipe.facts import DataFacts


class Wine(DataSpec):
    """Inputs (13,): chemical measurements on very different scales; three classes."""

    summary: ClassVar[str] = "178 wines, 13 measurements, three growers."
    paper: ClassVar[str | None] = "Aeberhard & Forina 1992, Wine, UCI"
    name: Literal["wine"] = "wine"

    def facts(self) -> DataFacts:
        return DataFacts(examples=178, input_shape=(13,), task="classification", outputs=3)
