"""One array inside an uploaded file: where its bytes lie, checked against what is really there."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy

from worker.prepare.report import Report
from worker.prepare.source import InputFile

BLOCK_BYTES: Final = 8 << 20
MAGIC: Final = b"\x93NUMPY"
MOST_HEADER: Final = 64 << 10
MOST_DIMENSIONS: Final = 8
PLAIN_KINDS: Final = "biufU"
"""numpy's letters for booleans, whole numbers, floating numbers and text; all others are refused."""
NumpyArray = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class ArraySource:
    """An array of plain values at `offset` in a file, whose bytes are all there. It is read by blocks of rows."""

    name: str
    source: InputFile
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool = False
    brain_float: bool = False
    """Its 16 bits are the upper half of a float32; `dtype` is uint16."""

    @property
    def rows(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * prod(self.shape[1:])

    def blocks(self) -> Iterator[NumpyArray]:
        """The rows in order, some megabytes at a time, in this machine's byte order."""
        step = max(1, BLOCK_BYTES // max(1, self.row_bytes))
        for start in range(0, self.rows, step):
            block = self._read_rows(start, min(start + step, self.rows))
            if self.brain_float:
                block = (block.astype(np.uint32) << 16).view(np.float32)
            yield block.astype(block.dtype.newbyteorder("="), copy=False)

    def _read_rows(self, start: int, end: int) -> NumpyArray:
        if self.fortran and len(self.shape) > 1:
            return self._gather_rows(start, end)
        data = self.source.read_at(self.offset + start * self.row_bytes, (end - start) * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(end - start, *self.shape[1:])

    def _gather_rows(self, start: int, end: int) -> NumpyArray:
        """Rows of an array whose first axis lies closest together: a piece of each of its columns."""
        size, columns = self.dtype.itemsize, prod(self.shape[1:])
        block = np.empty((columns, end - start), self.dtype)
        for column in range(columns):
            place = self.offset + (column * self.rows + start) * size
            block[column] = np.frombuffer(self.source.read_at(place, (end - start) * size), self.dtype)
        return block.reshape(*self.shape[:0:-1], end - start).T


def check_array(array: ArraySource, report: Report) -> ArraySource:
    """The array, if its type and shape can be read and the file holds all of it.

    Raises:
        Refused: code `array_type`, `array_shape` or `array_short`.
    """
    dtype, shape = array.dtype, array.shape
    if dtype.hasobject:
        message = "it holds Python objects, which are not read because they can run code; save plain numbers"
        report.refuse("array_type", message, column=array.name)
    if dtype.kind not in PLAIN_KINDS or dtype.itemsize == 0 or (dtype.kind == "f" and dtype.itemsize > 8):
        report.refuse("array_type", f"its type {dtype} cannot be used; save it as numbers", column=array.name)
    if not shape or len(shape) > MOST_DIMENSIONS or any(side < 0 for side in shape):
        report.refuse("array_shape", f"its shape {shape} is not one of rows", column=array.name)
    if 0 in shape:
        report.refuse("empty", f"it is empty: its shape is {shape}", column=array.name)
    wanted, there = dtype.itemsize * prod(shape), array.source.size - array.offset
    if wanted > there:
        message = f"it announces {wanted:,} bytes for its shape {shape}, the file has {max(0, there):,}"
        report.refuse("array_short", message, column=array.name)
    return array


def read_npy_header(source: InputFile, name: str, report: Report) -> ArraySource:
    """The array of a .npy file. Nothing of its size is allocated. Raises Refused where the header is bad."""
    head = source.read_at(0, 12)
    if not head.startswith(MAGIC) or len(head) < 12:
        report.refuse("unreadable", "it is not a .npy file", column=name)
    if head[6] not in {1, 2}:
        report.refuse("array_type", "it has named fields; save plain numbers", column=name)
    begin = 10 if head[6] == 1 else 12
    length = int.from_bytes(head[8:begin], "little")
    if length > MOST_HEADER:
        report.refuse("unreadable", f"its header has {length:,} bytes", column=name)
    try:
        fields = ast.literal_eval(source.read_at(begin, length).decode("latin-1"))
        shape, fortran = tuple(map(int, fields["shape"])), bool(fields["fortran_order"])
        dtype = npy.descr_to_dtype(fields["descr"])
    except (ValueError, TypeError, KeyError, SyntaxError, RecursionError, MemoryError, OverflowError) as error:
        message = f"its header is not that of a .npy file: {first_line(error)}"
        report.refuse("unreadable", message, column=name)
    array = check_array(ArraySource(name, source, begin + length, dtype, shape, fortran), report)
    end = array.offset + array.rows * array.row_bytes
    if end != source.size:
        report.refuse("array_long", f"{source.size - end:,} bytes follow its last value", column=name)
    return array


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its class where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]
