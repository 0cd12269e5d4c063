"""Writes arrays of inputs and targets as a dataset: images where they are bytes of pixels, else arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from core.recipe.data.manifest import MOST_CATEGORIES
from worker.prepare.array_source import ArraySource, NumpyArray
from worker.prepare.report import Report
from worker.prepare.writer import DatasetWriter

EXACT_WHOLE: Final = 1 << 24
"""Up to here a float32 holds every whole number."""
PixelOrder = Literal["grey", "last", "first"]


@dataclass(frozen=True, slots=True)
class Part:
    """Inputs with their targets, which belong to a split where the file itself has splits (0 train, 1 val, 2 test)."""

    inputs: ArraySource
    targets: ArraySource | None
    split: int | None = None


@dataclass(slots=True)
class Labels:
    """The distinct targets of a classification, in the order of their codes."""

    values: list[Any] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)

    def encode(self, block: NumpyArray) -> NumpyArray:
        """(rows,) int64: the place of each value."""
        return np.searchsorted(np.array(self.values), block).astype(np.int64)


def write_examples(parts: list[Part], name: str, out: DatasetWriter, report: Report) -> None:
    """Check, convert and write all parts, in order. `name` is the format.

    Raises:
        Refused: lengths or shapes differ, a value is not finite, or a type is not one of numbers.
    """
    _check_parts(parts, report)
    order = _pixel_order(parts[0].inputs)
    labels = _collect_labels(parts, report)
    total = sum(part.inputs.rows for part in parts)
    for part in parts:
        _write_inputs(part.inputs, order, total, out, report)
        if part.targets is not None:
            _write_targets(part.targets, labels, "labels" if order else "targets", out, report)
        if part.split is not None:
            out.append("split", np.full(part.inputs.rows, part.split, np.uint8))
    report.check()
    facts: dict[str, Any] = {}
    if labels is not None:
        facts = {"classes": tuple(str(value) for value in labels.values), "class_counts": tuple(labels.counts)}
        if len(labels.values) == 1:
            report.warn(f"all examples have one class: {labels.values[0]}")
    if parts[0].split is not None:
        facts["split_counts"] = tuple(sum(p.inputs.rows for p in parts if p.split == each) for each in range(3))
    out.finish(kind="images" if order else "arrays", format=name, **facts)


def _check_parts(parts: list[Part], report: Report) -> None:
    first = parts[0]
    for part in parts:
        if part.inputs.dtype.kind == "U":
            report.refuse("array_type", "inputs are text; save numbers", column=part.inputs.name)
        if part.inputs.shape[1:] != first.inputs.shape[1:] or part.inputs.dtype != first.inputs.dtype:
            message = (
                f"its rows have shape {part.inputs.shape[1:]}, those of {first.inputs.name} another or another type"
            )
            report.refuse("array_shape", message, column=part.inputs.name)
        if part.targets is None or first.targets is None:
            continue
        if part.targets.rows != part.inputs.rows:
            message = f"it has {part.targets.rows:,} rows, {part.inputs.name} has {part.inputs.rows:,}"
            report.refuse("lengths_differ", message, column=part.targets.name)
        if len(part.targets.shape) > 2 or part.targets.shape[1:] != first.targets.shape[1:]:
            report.refuse("array_shape", f"targets of shape {part.targets.shape}", column=part.targets.name)
        if part.targets.dtype.kind != first.targets.dtype.kind:
            report.refuse("array_type", "targets of several types", column=part.targets.name)


def _pixel_order(inputs: ArraySource) -> PixelOrder | None:
    """How bytes of pixels lie; None: these inputs are not images."""
    if inputs.dtype != np.uint8 or len(inputs.shape) not in {3, 4}:
        return None
    if len(inputs.shape) == 3:
        return "grey"
    if inputs.shape[3] in {1, 3}:
        return "last"
    return "first" if inputs.shape[1] in {1, 3} else None


def _collect_labels(parts: list[Part], report: Report) -> Labels | None:
    """The classes, where targets are one whole number, boolean or text per row; None: they are numbers to predict."""
    targets = [part.targets for part in parts if part.targets is not None]
    if not targets or targets[0].dtype.kind not in "biuU" or targets[0].row_bytes != targets[0].dtype.itemsize:
        return None
    found: dict[Any, int] = {}
    for array in targets:
        for block in array.blocks():
            values, counts = np.unique(block.reshape(-1), return_counts=True)
            for value, count in zip(values.tolist(), counts.tolist(), strict=True):
                found[value] = found.get(value, 0) + count
            if len(found) > MOST_CATEGORIES:
                _report_many_classes(array, report)
                return None
    return Labels(sorted(found), [found[value] for value in sorted(found)])


def _report_many_classes(array: ArraySource, report: Report) -> None:
    if array.dtype.kind == "U":
        report.refuse("too_many_classes", f"more than {MOST_CATEGORIES:,} different texts", column=array.name)
    report.warn(f"{array.name} has more than {MOST_CATEGORIES:,} different values: they are numbers, not classes")


def _write_inputs(
    inputs: ArraySource, order: PixelOrder | None, total: int, out: DatasetWriter, report: Report
) -> None:
    tensor = "pixels" if order else "inputs"
    for block in inputs.blocks():
        out.append(tensor, _as_pixels(block, order) if order else _as_floats(block, out.rows(tensor), inputs, report))
        report.progress(out.rows(tensor), total)


def _write_targets(
    targets: ArraySource, labels: Labels | None, tensor: str, out: DatasetWriter, report: Report
) -> None:
    if tensor == "labels" and labels is None:
        report.refuse("array_type", "images need one class each: a whole number or a text", column=targets.name)
    for block in targets.blocks():
        if labels is not None:
            out.append(tensor, labels.encode(block.reshape(-1)))
        else:
            wide = block.reshape(block.shape[0], -1)
            out.append(tensor, _as_floats(wide, out.rows(tensor), targets, report))


def _as_pixels(block: NumpyArray, order: PixelOrder) -> NumpyArray:
    """(n, C, H, W) uint8."""
    if order == "grey":
        return block[:, None]
    return np.moveaxis(block, 3, 1) if order == "last" else block


def _as_floats(block: NumpyArray, before: int, array: ArraySource, report: Report) -> NumpyArray:
    """The same as float32. `before` rows were written earlier.

    Each value that is not finite, or too large for float32, is an error with its row.
    """
    if block.dtype.kind == "U":
        report.refuse("array_type", "it holds text where numbers are needed", column=array.name)
    with np.errstate(over="ignore"):
        made = block.astype(np.float32)
    if not np.isfinite(made).all():
        for row, value in _first_odd_values(block, made):
            report.error("not_finite", f"{value} is not a finite float32", row=before + row + 1, column=array.name)
    if block.dtype.kind in "iu" and block.dtype.itemsize > 2 and np.abs(made).max() > EXACT_WHOLE:
        report.warn(f"{array.name} has whole numbers above {EXACT_WHOLE:,}, which float32 rounds")
    return made


def _first_odd_values(block: NumpyArray, made: NumpyArray) -> Iterator[tuple[int, Any]]:
    """(row, value) of the first value in each row that is not finite."""
    flat, source = made.reshape(made.shape[0], -1), block.reshape(block.shape[0], -1)
    odd = ~np.isfinite(flat)
    for row in np.flatnonzero(odd.any(axis=1)).tolist():
        yield row, source[row, int(odd[row].argmax())]
