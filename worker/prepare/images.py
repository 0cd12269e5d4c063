"""Images: an archive of class folders, or of images and a table. Two passes: headers first, then pixels."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np

from core.recipe.data.manifest import SPLITS
from core.recipe.prepare import PrepareOptions, PrepareSpec
from worker.prepare.archive import Member, iterate_members
from worker.prepare.image_file import BadImage, ImageHeader, decode_image, read_header
from worker.prepare.image_index import (
    ImagePlace,
    index_by_folder,
    index_by_table,
    is_hidden,
    is_image_name,
    is_table_name,
)
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter, NumpyBlock

BLOCK_BYTES: Final = 8 << 20
PREVIEW: Final = 20
MOST_SHOWN: Final = 5
MOST_CLASSES: Final = 10_000


@dataclass(slots=True)
class _FirstPass:
    """What the headers of all images say."""

    headers: dict[str, ImageHeader] = field(default_factory=dict)
    tables: list[tuple[Member, bytes]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)


def read_images(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Write `pixels` uint8 (n, C, H, W), `labels` int64 (n,) and perhaps `split`, in the order of the archive."""
    first = _read_headers(source, report)
    places = _find_places(first, report)
    size, channels = _choose_size(first, places, spec.options, report)
    classes = sorted({place.label for place in places.values()})
    if len(classes) > MOST_CLASSES:
        report.refuse("too_many_classes", f"{len(classes):,} classes; at most {MOST_CLASSES:,} are allowed")
    if len(classes) == 1:
        report.warn(f"there is one class only ({classes[0]}): nothing can be learned from it")
    for note, count in sorted(first.notes.items()):
        report.warn(f"{note}: {count} of {len(first.headers)}")
    for suffix, count in sorted(first.others.items()):
        report.warn(f"{count} files {suffix} are no images and are left out")
    code_of = {name: code for code, name in enumerate(classes)}
    writer = _PixelWriter(out, code_of, max(1, BLOCK_BYTES // (channels * size[0] * size[1])))
    preview = _write_pixels(source, places, size, channels, writer, report)
    counts = Counter(place.label for place in places.values())
    splits = Counter(place.split for place in places.values())
    by_split = None if None in splits else tuple(splits[number] for number in range(len(SPLITS)))
    out.finish(
        kind="images",
        format="images",
        classes=tuple(classes),
        class_counts=tuple(counts[name] for name in classes),
        split_counts=by_split,
        preview=preview,
    )


def _read_headers(source: InputFile, report: Report) -> _FirstPass:
    found = _FirstPass()
    for member in iterate_members(source, report):
        if is_hidden(member.name):
            continue
        if is_image_name(member.name):
            try:
                header = read_header(member.read())
            except BadImage as error:
                report.error(error.code, str(error), file=member.name)
                continue
            found.headers[member.name] = header
            found.notes.update(header.notes)
        elif is_table_name(member.name):
            found.tables.append((member, member.read()))
        else:
            found.others[
                f"*.{member.name.rpartition('.')[2]}"
                if "." in PurePosixPath(member.name).name
                else PurePosixPath(member.name).name
            ] += 1
    report.check()
    if not found.headers:
        report.refuse("no_images", "there is no image in the archive (PNG, JPEG, BMP, GIF, WebP or TIFF)")
    return found


def _find_places(first: _FirstPass, report: Report) -> dict[str, ImagePlace]:
    names = list(first.headers)
    if not first.tables:
        return _all_or_none(index_by_folder(names, report), report)
    if len(first.tables) > 1:
        listed = ", ".join(member.name for member, _ in first.tables[:MOST_SHOWN])
        report.refuse("many_tables", f"one table may name the classes; here are {listed}")
    return _all_or_none(index_by_table(*first.tables[0], names, report), report)


def _all_or_none(places: dict[str, ImagePlace], report: Report) -> dict[str, ImagePlace]:
    """Splits of the upload are those of every image, or of none."""
    given = [place.split is not None for place in places.values()]
    if any(given) and not all(given):
        report.refuse("bad_split", f"{given.count(False)} images have no split, and others have one")
    return places


def _choose_size(
    first: _FirstPass, places: dict[str, ImagePlace], options: PrepareOptions, report: Report
) -> tuple[tuple[int, int], int]:
    """((height, width), channels) of every image."""
    headers = [first.headers[name] for name in places]
    sizes = Counter((each.height, each.width) for each in headers)
    if options.size is None and len(sizes) > 1:
        shown = ", ".join(f"{h} x {w} ({count})" for (h, w), count in sizes.most_common(MOST_SHOWN))
        report.refuse(
            "mixed_sizes", f"{len(sizes)} sizes (height x width): {shown}; choose one with the option size: [h, w]"
        )
    gray = sum(each.gray for each in headers)
    channels = options.channels or (1 if 2 * gray > len(headers) else 3)
    other = len(headers) - gray if channels == 1 else gray
    if other:
        report.warn(
            f"{other} of {len(headers)} images are {'coloured' if channels == 1 else 'gray'}; all are stored "
            f"{'in gray' if channels == 1 else 'in colour'} (option channels)"
        )
    size = options.size or next(iter(sizes))
    if options.size and (scaled := sum(count for each, count in sizes.items() if each != size)):
        report.warn(f"{scaled} of {len(headers)} images are scaled to {size[0]} x {size[1]}, their edges cut off")
    return size, channels


class _PixelWriter:
    """Collects images and writes them in blocks."""

    def __init__(self, out: DatasetWriter, code_of: dict[str, int], most: int) -> None:
        self._out = out
        self._code_of = code_of
        self._most = most
        self._pixels: list[NumpyBlock] = []
        self._labels: list[int] = []
        self._splits: list[int] = []

    def add(self, pixels: NumpyBlock, place: ImagePlace) -> None:
        self._pixels.append(pixels)
        self._labels.append(self._code_of[place.label])
        if place.split is not None:
            self._splits.append(place.split)
        if len(self._pixels) == self._most:
            self.flush()

    def flush(self) -> None:
        if not self._pixels:
            return
        self._out.append("pixels", np.stack(self._pixels))
        self._out.append("labels", np.array(self._labels, dtype=np.int64))
        if self._splits:
            self._out.append("split", np.array(self._splits, dtype=np.uint8))
        for collected in (self._pixels, self._labels, self._splits):
            collected.clear()


def _write_pixels(  # noqa: PLR0913, PLR0917 - what is read, how, and where it goes
    source: InputFile,
    places: dict[str, ImagePlace],
    size: tuple[int, int],
    channels: int,
    writer: _PixelWriter,
    report: Report,
) -> tuple[dict[str, Any], ...]:
    """The second pass; returns the preview."""
    preview: list[dict[str, Any]] = []
    for member in iterate_members(source, report):
        place = places.get(member.name)
        if place is None:
            continue
        try:
            pixels = decode_image(member.read(), channels, size)
        except BadImage as error:
            report.error(error.code, str(error), file=member.name)
            continue
        writer.add(pixels, place)
        if len(preview) < PREVIEW:
            preview.append({"file": member.name, "class": place.label})
    report.check()
    writer.flush()
    return tuple(preview)
