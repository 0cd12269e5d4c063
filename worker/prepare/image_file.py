"""One image file: what its header says, and its pixels as uint8 (C, H, W)."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from worker.prepare.writer import NumpyBlock

FORMATS: Final = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MOST_PIXELS: Final = 64 << 20
GRAY_MODES: Final = frozenset({"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N", "I"})
SIXTEEN_BITS: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_ORIENTATION: Final = 0x0112  # the tag of EXIF
ALPHA_MODES: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})


class BadImage(ValueError):  # noqa: N818 - it says what the file is
    """This file is not an image that can be read. `code` is that of the refusal."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """`height` and `width` as the picture is shown (after its EXIF orientation)."""

    height: int
    width: int
    gray: bool
    notes: tuple[str, ...]
    """What is changed on the way to pixels, each a sentence about such images."""


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, its pixels not decoded yet. BadImage for every failure of a decoder."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise BadImage("too_many_pixels", f"{image.width} x {image.height} pixels; at most 64 million")
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage("too_many_pixels", "too many pixels; at most 64 million") from None
    except UnidentifiedImageError:
        raise BadImage("not_an_image", f"this is not one of {', '.join(FORMATS)}") from None
    except PermissionError:
        raise  # a module that should have been loaded before the process was confined
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, TypeError, KeyError) as error:
        if isinstance(error, BadImage):
            raise
        raise BadImage("bad_image", f"the image cannot be decoded: {error}") from error


def read_header(content: bytes) -> ImageHeader:
    """What the header says. Raises BadImage."""
    with _opened(content) as image:
        turned = _orientation(image) in {5, 6, 7, 8}
        width, height = image.size
        return ImageHeader(
            width if turned else height, height if turned else width, _is_gray(image), tuple(_notes(image))
        )


def _orientation(image: Image.Image) -> int:
    """From the header: `getexif` of a PNG would decode its pixels first."""
    return int(Image.Image.getexif(image).get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _is_gray(image: Image.Image) -> bool:
    if image.mode != "P":
        return image.mode in GRAY_MODES
    colours = np.array(image.getpalette("RGB") or [], dtype=np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def _notes(image: Image.Image) -> Iterator[str]:
    if image.mode in SIXTEEN_BITS:
        yield "images of 16 bits are stored with 8 (divided by 257)"
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        yield "transparent images are drawn on white"
    if image.mode == "CMYK":
        yield "CMYK images are converted to RGB"
    if getattr(image, "n_frames", 1) > 1:
        yield "of images with several frames, the first is used"
    if _orientation(image) != 1:
        yield "images are turned as their EXIF orientation says"


def decode_image(content: bytes, channels: int, size: tuple[int, int] | None) -> NumpyBlock:
    """Pixels uint8 (channels, height, width). Raises BadImage.

    Another `size` is reached by scaling until the image covers it, and cutting the middle out.
    """
    with _opened(content) as image:
        if image.mode in {"I", "F"}:
            raise BadImage("bad_depth", f"pixels of 32 bits (mode {image.mode}) have no range; store 8 or 16 bits")
        shown = ImageOps.exif_transpose(_in_eight_bits(image))
        flat = _on_white(shown).convert("L" if channels == 1 else "RGB")
        if size is not None and (flat.height, flat.width) != size:
            flat = ImageOps.fit(flat, (size[1], size[0]), method=Image.Resampling.BILINEAR)
        pixels: NumpyBlock = np.asarray(flat, dtype=np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Pillow's own conversion of 16 bits saturates: 300 and 65535 would both become 255."""
    if image.mode not in SIXTEEN_BITS:
        return image
    values: Any = np.asarray(image, dtype=np.uint32)
    eight = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    eight.info["exif"] = image.info.get("exif", b"")
    return eight


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode not in ALPHA_MODES and "transparency" not in image.info:
        return image
    layered = image.convert("RGBA")
    white = Image.new("RGBA", layered.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, layered).convert("RGB")
