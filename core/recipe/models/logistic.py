from typing import ClassVar, Literal

from core.recipe.facts import DataFacts
from core.recipe.models.base import ModelSpec


class Logistic(ModelSpec):
    """One linear layer: softmax regression for classes, linear regression for numbers. Convex."""

    summary: ClassVar[str] = "Softmax (or linear) regression: one layer, one minimum."
    implementation: ClassVar[str] = "core.engine.networks.logistic:build"
    name: Literal["logistic"] = "logistic"

    def parameter_count(self, facts: DataFacts) -> int:
        return (facts.features + 1) * facts.outputs
