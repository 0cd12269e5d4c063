"""Changes of pixel values, clipped to the range of a pixel."""

from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec

Strength = Annotated[float, Field(gt=0, le=1)]


class Brightness(Spec):
    """x -> f x, f uniform in [1 - strength, 1 + strength]."""

    op: Literal["brightness"] = "brightness"
    strength: Strength = 0.2


class Contrast(Spec):
    """x -> m + f (x - m), m the mean grey value of the image, f uniform in [1 - strength, 1 + strength]."""

    op: Literal["contrast"] = "contrast"
    strength: Strength = 0.2


class Saturation(Spec):
    """x -> g + f (x - g), g the grey value of the pixel, f uniform in [1 - strength, 1 + strength].

    Images have three channels.
    """

    op: Literal["saturation"] = "saturation"
    strength: Strength = 0.2
