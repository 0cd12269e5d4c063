from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.data.generated import GeneratedSpec, Noise, StableRandom
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    from core.recipe.data.base import Array


class Spirals(GeneratedSpec):
    """Inputs (2,): class k of K is at radius r, uniform in [0, 1), and angle 2π (turns r + k / K), plus noise."""

    summary: ClassVar[str] = "Arms of a spiral, one per class: easy to see, hard for shallow networks."
    paper: ClassVar[str | None] = "Lang & Witbrock 1988, Learning to tell two spirals apart"
    name: Literal["spirals"] = "spirals"
    classes: Annotated[int, Field(ge=2, le=100)] = 3
    turns: Annotated[float, Field(gt=0, le=1000)] = 1.0
    noise: Noise = 0.02

    def facts(self) -> DataFacts:
        return DataFacts(self.examples, (2,), "classification", self.classes)

    def draw_inputs(self, labels: "Array", draws: StableRandom) -> "Array":
        import numpy as np

        radius = draws.uniform(len(labels))
        angle = 2 * np.pi * (self.turns * radius + labels / self.classes)
        arms: Array = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        return arms + self.noise * draws.normal(len(labels), 2)
