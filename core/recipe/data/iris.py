from typing import ClassVar, Literal

from core.recipe.data.base import DataSpec
from core.recipe.facts import DataFacts


class Iris(DataSpec):
    """Inputs (4,): lengths and widths in cm; three classes."""

    summary: ClassVar[str] = "150 iris flowers, 4 measurements, three species."
    paper: ClassVar[str | None] = "Fisher 1936, The use of multiple measurements in taxonomic problems"
    name: Literal["iris"] = "iris"

    def facts(self) -> DataFacts:
        return DataFacts(examples=150, input_shape=(4,), task="classification", outputs=3)
