"""Changes of pixel values, clipped to the range of a pixel. The factor f is uniform in [1 - strength, 1 + strength]."""

from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec

Strength = Annotated[float, Field(gt=0, le=1)]


class Brightness(Spec):
    """x -> f x."""

    op: Literal["brightness"] = "brightness"
    strength: Strength = 0.2


class Contrast(Spec):
    """x -> m + f (x - m), where m is the mean grey value of the image."""

    op: Literal["contrast"] = "contrast"
    strength: Strength = 0.2


class Saturation(Spec):
    """x -> g + f (x - g), where g is the grey value of the pixel. Images have three channels."""

    op: Literal["saturation"] = "saturation"
    strength: Strength = 0.2
