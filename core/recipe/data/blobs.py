from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.data.generated import GeneratedSpec, Noise, StableRandom
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    from core.recipe.data.base import Array

HALF_WIDTH = 10.0  # of the box that contains the centres


class Blobs(GeneratedSpec):
    """Inputs (features,): class k is a round Gaussian of standard deviation `noise` around its own centre.

    Centres are uniform in [-10, 10] along every axis.
    """

    summary: ClassVar[str] = "Round Gaussian clouds, one per class; the noise sets the difficulty."
    name: Literal["blobs"] = "blobs"
    classes: Annotated[int, Field(ge=2, le=1000)] = 3
    features: Annotated[int, Field(ge=1, le=10_000)] = 2
    noise: Noise = 1.0

    def facts(self) -> DataFacts:
        return DataFacts(self.examples, (self.features,), "classification", self.classes)

    def draw_inputs(self, labels: "Array", draws: StableRandom) -> "Array":
        centres = HALF_WIDTH * (2 * draws.uniform(self.classes, self.features) - 1)
        cloud: Array = centres[labels] + self.noise * draws.normal(len(labels), self.features)
        return cloud
