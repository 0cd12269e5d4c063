"""Changes of pixel values (b, C, H, W), 0 to 255; the factor f is uniform in [1 - strength, 1 + strength]."""

from typing import Final

from torch import Tensor

from core.engine.datasets.draws import Draws

Key = tuple[str | int, ...]

WHITE: Final = 255.0
COLOURS: Final = 3  # channels of an image with colour
GREY: Final = (0.299, 0.587, 0.114)  # weights of red, green and blue (ITU-R BT.601)
FIXED_POINT: Final = 2.0**16  # pixels are added up as whole multiples of 1 / FIXED_POINT


def brightness(pixels: Tensor, draws: Draws, key: Key, strength: float) -> Tensor:
    """Each value x becomes f x, clipped."""
    return (pixels.float() * _factors(draws, key, strength)).clamp(0.0, WHITE)


def contrast(pixels: Tensor, draws: Draws, key: Key, strength: float) -> Tensor:
    """Each value x becomes m + f (x - m), clipped, where m is the mean grey value of the image."""
    values = pixels.float()
    grey = (grey_values(values) * FIXED_POINT).round().long()
    mean = (grey.sum((1, 2, 3)).double() / (FIXED_POINT * grey[0].numel())).float()[:, None, None, None]
    return (mean + _factors(draws, key, strength) * (values - mean)).clamp(0.0, WHITE)


def saturation(pixels: Tensor, draws: Draws, key: Key, strength: float) -> Tensor:
    """Each value x becomes g + f (x - g), clipped, where g is the grey value of the pixel."""
    values = pixels.float()
    grey = grey_values(values)
    return (grey + _factors(draws, key, strength) * (values - grey)).clamp(0.0, WHITE)


def grey_values(values: Tensor) -> Tensor:
    """float32 (b, 1, H, W)."""
    if values.shape[1] != COLOURS:
        return values[:, :1]
    return GREY[0] * values[:, 0:1] + GREY[1] * values[:, 1:2] + GREY[2] * values[:, 2:3]


def _factors(draws: Draws, key: Key, strength: float) -> Tensor:
    """float32 (b, 1, 1, 1)."""
    factors = 1 + strength * (2 * draws.uniform(*key, "factor") - 1)
    return factors.float()[:, None, None, None]
