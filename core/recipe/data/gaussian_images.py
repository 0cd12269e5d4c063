from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from core.recipe.data.generated import GeneratedSpec, Noise, StableRandom
from core.recipe.facts import DataFacts

if TYPE_CHECKING:
    from core.recipe.data.base import Array


class GaussianImages(GeneratedSpec):
    """Inputs (channels, size, size): the picture of the class, plus `noise` times a standard normal in every pixel.

    The picture of a class is a sum of `bumps` Gaussians in each channel, of height 1 and a width of a sixth of the
    side, at random places. Every class is therefore a Gaussian in pixel space, and the optimal classifier is linear.
    """

    summary: ClassVar[str] = "Pictures of a few blurred spots per class, with noise."
    name: Literal["gaussian_images"] = "gaussian_images"
    classes: Annotated[int, Field(ge=2, le=1000)] = 10
    size: Annotated[int, Field(ge=2, le=256)] = 8
    channels: Annotated[int, Field(ge=1, le=16)] = 1
    bumps: Annotated[int, Field(ge=1, le=16)] = 3
    noise: Noise = 0.5

    def facts(self) -> DataFacts:
        return DataFacts(self.examples, (self.channels, self.size, self.size), "classification", self.classes)

    def draw_inputs(self, labels: "Array", draws: StableRandom) -> "Array":
        pictures = self.class_means(draws)
        noisy: Array = pictures[labels] + self.noise * draws.normal(len(labels), *pictures.shape[1:])
        return noisy

    def class_means(self, draws: StableRandom) -> "Array":
        """The mean of each class: (classes, channels, size, size)."""
        import numpy as np

        centres = draws.uniform(self.classes, self.channels, self.bumps, 2)
        pixels = (np.arange(self.size) + 0.5) / self.size
        spread = np.exp(-((pixels - centres[..., None]) ** 2) * (6**2 / 2))  # (classes, channels, bumps, 2, size)
        total: Array = np.einsum("kcby,kcbx->kcyx", spread[..., 0, :], spread[..., 1, :])
        return total
