"""Changes of train images, drawn in every epoch from (seed, epoch, example). Validation and test stay as they are."""

from typing import Annotated

from pydantic import Field

from core.recipe.data.augment.colour import Brightness, Contrast, Saturation
from core.recipe.data.augment.mixing import CutMix, Mixup
from core.recipe.data.augment.moves import Crop, Erase, HorizontalFlip, Rotate90, VerticalFlip
from core.recipe.data.augment.randaugment import RandAugment

Augmentation = Annotated[
    Crop
    | HorizontalFlip
    | VerticalFlip
    | Rotate90
    | Erase
    | Brightness
    | Contrast
    | Saturation
    | Mixup
    | CutMix
    | RandAugment,
    Field(discriminator="op"),
]  # fmt: skip

__all__ = [
    "Augmentation",
    "Brightness",
    "Contrast",
    "Crop",
    "CutMix",
    "Erase",
    "HorizontalFlip",
    "Mixup",
    "RandAugment",
    "Rotate90",
    "Saturation",
    "VerticalFlip",
]
