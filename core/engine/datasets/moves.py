"""Moves of pixels (b, C, H, W) of any type: the values of those that stay are unchanged."""

import torch
from torch import Tensor
from torch.nn import functional

from core.engine.datasets.draws import Draws

Key = tuple[str | int, ...]


def crop(pixels: Tensor, draws: Draws, key: Key, padding: int) -> Tensor:
    """Pad each side by `padding` zeros and take a window of the original size at a random place."""
    many, channels, height, width = pixels.shape
    padded = functional.pad(pixels, (padding, padding, padding, padding))
    device = pixels.device
    rows = draws.integers(2 * padding, *key, "top")[:, None] + torch.arange(height, device=device)
    columns = draws.integers(2 * padding, *key, "left")[:, None] + torch.arange(width, device=device)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]  # (b, H, W) in a padded channel
    places = places.reshape(many, 1, height * width).expand(many, channels, height * width)
    return padded.flatten(2).gather(2, places).reshape(pixels.shape)


def flip(pixels: Tensor, draws: Draws, key: Key, axis: int) -> Tensor:
    """Mirror along an axis in half of the images."""
    chosen = draws.uniform(*key, "flip") < 0.5
    return torch.where(chosen[:, None, None, None], pixels.flip(axis), pixels)


def rotate90(pixels: Tensor, draws: Draws, key: Key) -> Tensor:
    """Rotate square images by 0, 90, 180 or 270 degrees, each equally likely."""
    turns = draws.integers(3, *key, "turns")[:, None, None, None]
    turned = pixels
    for number in (1, 2, 3):
        turned = torch.where(turns == number, pixels.rot90(number, (2, 3)), turned)
    return turned


def erase(pixels: Tensor, draws: Draws, key: Key, size: float, share: float) -> Tensor:
    """Make a rectangle black in a `share` of the images; its sides are `size` times those of the image, at least 1."""
    height, width = pixels.shape[2:]
    sides = max(1, int(size * height + 0.5)), max(1, int(size * width + 0.5))
    top = draws.integers(height - sides[0], *key, "top")
    left = draws.integers(width - sides[1], *key, "left")
    inside = rectangle(pixels, top, top + sides[0], left, left + sides[1])
    chosen = draws.uniform(*key, "erase") < share
    return pixels.masked_fill(inside & chosen[:, None, None, None], 0)


def rectangle(pixels: Tensor, top: Tensor, bottom: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Whether a pixel is in the rectangle of its image, bool (b, 1, H, W); the bounds are int64 (b,)."""
    rows = torch.arange(pixels.shape[2], device=pixels.device)[:, None]
    columns = torch.arange(pixels.shape[3], device=pixels.device)[None, :]
    top, bottom, left, right = (each[:, None, None] for each in (top, bottom, left, right))
    inside: Tensor = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    return inside[:, None]
