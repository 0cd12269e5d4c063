"""Reads IDX, the form of MNIST: one file of images, or images and labels in a zip or tar, each also as .gz."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

import numpy as np

from core.recipe.prepare import PrepareSpec
from worker.prepare.archive import inflate_pieces, iterate_members, spool
from worker.prepare.array_source import ArraySource, check_array
from worker.prepare.examples import Part, write_examples
from worker.prepare.report import Report
from worker.prepare.sniff import looks_like_idx
from worker.prepare.source import InputFile
from worker.prepare.writer import DatasetWriter

DTYPES: Final = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP: Final = b"\x1f\x8b"
_TEST_WORDS: Final = ("t10k", "test")


def read_idx(source: InputFile, spec: PrepareSpec, out: DatasetWriter, report: Report) -> None:
    """Images (or arrays) with labels from two files; from four, `train` and `t10k` or `test` are the split."""
    arrays = list(_find_arrays(source, out, report))
    inputs = [array for array in arrays if len(array.shape) > 1]
    labels = [array for array in arrays if len(array.shape) == 1]
    if not inputs:
        report.refuse("no_inputs", "the file has labels alone; put images and labels into one zip")
    if len(inputs) == 1 and not labels:
        report.warn("the file has no labels; a zip of images and labels has both")
        write_examples([Part(inputs[0], None)], "idx", out, report)
        return
    if len(inputs) != len(labels) or len(inputs) > 2:
        names = ", ".join(array.name for array in arrays)
        report.refuse(
            "no_targets", f"there must be one file of labels for each of images, for train and test; found {names}"
        )
    if len(inputs) == 1:
        write_examples([Part(inputs[0], labels[0])], "idx", out, report)
        return
    train, test = (
        Part(_pick(inputs, report, test=which), _pick(labels, report, test=which), 2 if which else 0)
        for which in (False, True)
    )
    write_examples([train, test], "idx", out, report)


def _find_arrays(source: InputFile, out: DatasetWriter, report: Report) -> Iterator[ArraySource]:
    head = source.read_at(0, 512)
    if looks_like_idx(head):
        yield read_idx_header(source, PurePosixPath(source.filename or "the file").name, report)
        return
    inner = next(inflate_pieces(source, report), b"") if head.startswith(_GZIP) else b""
    if looks_like_idx(inner):
        plain = spool(inflate_pieces(source, report), out.folder)
        yield read_idx_header(plain, PurePosixPath(source.filename or "the file").name, report)
        return
    for member in iterate_members(source, report):
        file = spool(member.pieces(), out.folder, member.name)
        if file.read_at(0, 2) == _GZIP:
            file = spool(inflate_pieces(file, report), out.folder, member.name)
        yield read_idx_header(file, member.name, report)


def _pick(arrays: list[ArraySource], report: Report, *, test: bool) -> ArraySource:
    """The one of two files whose name is that of the test part, or the other one."""
    found = [each for each in arrays if any(word in each.name.lower() for word in _TEST_WORDS) == test]
    if len(found) != 1:
        report.refuse("no_split", "of two pairs of files, the names of one must have `t10k` or `test`")
    return found[0]


def read_idx_header(source: InputFile, name: str, report: Report) -> ArraySource:
    """The array of one IDX file, which must end with its last value. Raises Refused."""
    head = source.read_at(0, 4 + 4 * 255)
    if not looks_like_idx(head) or len(head) < 4 + 4 * head[3]:
        report.refuse("unreadable", "it is not an IDX file", file=name)
    sides = np.frombuffer(head, ">u4", count=head[3], offset=4)
    shape = tuple(int(side) for side in sides)
    array = ArraySource(name, source, 4 + 4 * len(shape), np.dtype(DTYPES[head[2]]), shape)
    check_array(array, report)
    end = array.offset + array.rows * array.row_bytes
    if end != source.size:
        report.refuse("array_long", f"{source.size - end:,} bytes follow its last value", file=name)
    return array
