from typing import ClassVar, Literal

from core.recipe.data.base import DataSpec
from core.recipe.facts import DataFacts


class Digits(DataSpec):
    """Inputs (1, 8, 8): counts of ink from 0 to 16; ten classes."""

    summary: ClassVar[str] = "1,797 real handwritten digits, 8 by 8 pixels."
    paper: ClassVar[str | None] = "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI"
    name: Literal["digits"] = "digits"

    def facts(self) -> DataFacts:
        return DataFacts(examples=1797, input_shape=(1, 8, 8), task="classification", outputs=10)
