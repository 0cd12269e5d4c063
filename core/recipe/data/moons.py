from typing import TYPE_CHECKING, ClassVar, Literal

from core.recipe.data.generated import GeneratedSpec, Noise, StableRandom
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    from core.recipe.data.base import Array


class Moons(GeneratedSpec):
    """Inputs (2,): (cos a, sin a) for class 0, (1 - cos a, 1/2 - sin a) for class 1, a uniform in [0, π], plus noise.

    No line separates them.
    """

    summary: ClassVar[str] = "Two interleaved half circles."
    name: Literal["moons"] = "moons"
    noise: Noise = 0.1

    def facts(self) -> DataFacts:
        return DataFacts(self.examples, (2,), "classification", 2)

    def draw_inputs(self, labels: "Array", draws: StableRandom) -> "Array":
        import numpy as np

        angle = np.pi * draws.uniform(len(labels))
        upper = np.stack([np.cos(angle), np.sin(angle)], 1)
        points: Array = np.where(labels[:, None] == 0, upper, np.array([1.0, 0.5]) - upper)
        return points + self.noise * draws.normal(len(labels), 2)
