from typing import ClassVar, Literal

from core.recipe.data.base import DataSpec
from core.recipe.facts import DataFacts


class BreastCancer(DataSpec):
    """Inputs (30,): measurements of cell nuclei on very different scales; two classes."""

    summary: ClassVar[str] = "569 tumours, 30 measurements, malignant or benign."
    paper: ClassVar[str | None] = "Wolberg et al. 1995, Breast Cancer Wisconsin (Diagnostic), UCI"
    name: Literal["breast_cancer"] = "breast_cancer"

    def facts(self) -> DataFacts:
        return DataFacts(examples=569, input_shape=(30,), task="classification", outputs=2)
