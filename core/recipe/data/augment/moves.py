"""Moves of pixels: the values of those that stay are unchanged."""

from typing import Annotated, Literal

from pydantic import Field

from core.recipe.component import Spec


class Crop(Spec):
    """Pad each side by `padding` black pixels and take a window of the original size at a random place."""

    op: Literal["crop"] = "crop"
    padding: Annotated[int, Field(ge=1, le=256)] = 4


class HorizontalFlip(Spec):
    """Mirror left and right in half of the images."""

    op: Literal["hflip"] = "hflip"


class VerticalFlip(Spec):
    """Mirror top and bottom in half of the images."""

    op: Literal["vflip"] = "vflip"


class Rotate90(Spec):
    """Rotate by 0, 90, 180 or 270 degrees, each equally likely. Images are square."""

    op: Literal["rotate90"] = "rotate90"


class Erase(Spec):
    """Make a rectangle black, in a `share` of the images; its sides are `size` times those of the image."""

    op: Literal["erase"] = "erase"
    size: Annotated[float, Field(gt=0, le=1)] = 0.5
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
