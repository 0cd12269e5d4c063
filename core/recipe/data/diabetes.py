from typing import ClassVar, Literal

from core.recipe.data.base import DataSpec
from core.recipe.facts import DataFacts


class Diabetes(DataSpec):
    """Inputs (10,): age, sex, body mass index, blood pressure, six blood values; the target measures progression."""

    summary: ClassVar[str] = "442 patients, 10 measurements, disease progression a year later (regression)."
    paper: ClassVar[str | None] = "Efron et al. 2004, Least angle regression"
    name: Literal["diabetes"] = "diabetes"

    def facts(self) -> DataFacts:
        return DataFacts(examples=442, input_shape=(10,), task="regression", outputs=1)
