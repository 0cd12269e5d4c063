"""Reads .npy, .npz and safetensors: inputs and targets by their usual names."""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePosixPath
from typing import Any, Final

import numpy as np

from core.recipe.prepare import PrepareSpec
from worker.prepare.archive import iterate_members, spool
from worker.prepare.array_source import ArraySource, check_array, first_line, read_npy_header
from worker.prepare.examples import Part, write_examples
from worker.prepare.report import Report
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

PAIRS: Final[tuple[tuple[str, str], ...]] = (
    ("inputs", "targets"),
    ("X", "y"),
    ("x", "y"),
    ("data", "target"),
    ("images", "labels"),
)
SPLIT_PAIRS: Final[tuple[tuple[tuple[str, str], ...], ...]] = tuple(
    tuple((f"{first}_{part}", f"{second}_{part}") for part in parts)
    for first, second in (("x", "y"), ("X", "y"))
    for parts in (("train", "val", "test"), ("train", "valid", "test"), ("train", "validation", "test"))
)
WANTED: Final = "name them inputs and targets, or X and y"
MOST_HEADER: Final = 16 << 20
_DTYPES: Final[dict[str, str]] = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}


def read_npy(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """One array: inputs without targets."""
    array = read_npy_header(source, "inputs", report)
    report.warn("the file has inputs and no targets; a file of numpy.savez(file, inputs=…, targets=…) has both")
    write_examples([Part(array, None)], "npy", out, report)


def read_npz(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """The arrays of a zip of .npy files. Each is unpacked into a file of its own, with limits."""
    arrays: dict[str, ArraySource] = {}
    for member in iterate_members(source, report):
        path = PurePosixPath(member.name)
        if path.suffix != ".npy" or len(path.parts) != 1:
            report.refuse("not_an_array", "an .npz holds .npy files alone", file=member.name)
        arrays[path.stem] = read_npy_header(spool(member.pieces(), out.folder), path.stem, report)
        report.progress(len(arrays), None, 0.1)
    write_examples(choose_parts(arrays, report), "npz", out, report)


def read_safetensors(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """The tensors of a safetensors file, which must fill it without gap or overlap."""
    length = int.from_bytes(source.read_at(0, 8), "little")
    if source.size < 10 or length > min(MOST_HEADER, source.size - 8):
        report.refuse("unreadable", f"its header announces {length:,} bytes")
    try:
        header = json.loads(source.read_at(8, length), object_pairs_hook=_object_without_repeats)
    except (ValueError, RecursionError) as error:
        report.refuse("unreadable", f"its header is not JSON: {first_line(error)}")
    tensors = {name: each for name, each in _as_object(header).items() if name != "__metadata__"}
    arrays, ends = {}, []
    for name, entry in tensors.items():
        begin, end, arrays[name] = _read_tensor(source, 8 + length, name, _as_object(entry), report)
        ends.append((begin, end))
    place = 0
    for begin, end in sorted(ends):
        if begin != place:
            report.refuse("unreadable", "its tensors overlap, or leave a gap")
        place = end
    if 8 + length + place != source.size:
        report.refuse("unreadable", f"its tensors end at byte {8 + length + place:,} of {source.size:,}")
    write_examples(choose_parts(arrays, report), "safetensors", out, report)


def choose_parts(arrays: Mapping[str, ArraySource], report: Report) -> list[Part]:
    """Which array holds inputs and which targets, by name; with `_train`, `_val`, `_test` also the split.

    Raises:
        Refused: there is no such pair; the message says what is there.
    """
    pairs = _find_pairs(arrays.keys())
    if not pairs:
        there = ", ".join(f"{name} {array.shape}" for name, array in sorted(arrays.items())) or "nothing"
        report.refuse("no_targets", f"no array of inputs with one of targets; {WANTED}. The file has {there}")
    unused = sorted(arrays.keys() - {name for pair in pairs.values() for name in pair})
    if unused:
        report.warn(f"not used: {', '.join(unused)}")
    split = len(pairs) > 1
    return [Part(arrays[x], arrays[y], place if split else None) for place, (x, y) in pairs.items()]


def _find_pairs(names: AbstractSet[str]) -> dict[int, tuple[str, str]]:
    """Split (0 train, 1 validation, 2 test) -> the names of its inputs and targets."""
    for pair in PAIRS:
        if names >= set(pair):
            return {0: pair}
    for pairs in SPLIT_PAIRS:
        found = {place: pair for place, pair in enumerate(pairs) if names >= set(pair)}
        if 0 in found and len(found) > 1:
            return found
    return next(({0: pairs[0]} for pairs in SPLIT_PAIRS if names >= set(pairs[0])), {})


def _read_tensor(
    source: InputFile, base: int, name: str, entry: Mapping[str, Any], report: Report
) -> tuple[int, int, ArraySource]:
    """(begin, end, array) of one entry of the header, checked against the file."""
    try:
        shape, (begin, end) = tuple(_as_count(side) for side in entry["shape"]), map(_as_count, entry["data_offsets"])
        dtype = np.dtype(_DTYPES[entry["dtype"]])
    except KeyError as error:
        report.refuse("array_type", f"its type or an entry is not known: {error}", column=name)
    except (TypeError, ValueError) as error:
        report.refuse("unreadable", f"its entry in the header is bad: {first_line(error)}", column=name)
    array = ArraySource(name, source, base + begin, dtype, shape, brain_float=entry["dtype"] == "BF16")
    check_array(array, report)
    if end - begin != array.rows * array.row_bytes:
        message = f"its shape {shape} needs {array.rows * array.row_bytes:,} bytes, it has {end - begin:,}"
        report.refuse("array_short", message, column=name)
    return begin, end, array


def _as_count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"not a size: {value!r:.40}")
    return value


def _as_object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name twice")
    return made
