"""Writes the canonical form of a dataset: safetensors shards of all tensors, and the manifest."""

import json
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np

from core.recipe.data.manifest import MANIFEST_FILE, ROW_TENSORS, DatasetManifest, ShardFile, TensorShape
from core.recipe.prepare import PrepareSpec
from worker.prepare.report import Report
from worker.prepare.source import InputFile

SHARD_BYTES: Final = 256 << 20
SHARD_ROWS: Final = 1 << 20
COPY_BYTES: Final = 4 << 20
MOST_RATIO: Final = 200
"""Bytes that one byte of the file may become; a Parquet file of a few kilobytes can hold a billion equal values."""
RATIO_FROM_BYTES: Final = 1 << 30
ALIGNMENT: Final = 8
DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "I32": np.dtype("<i4"),
    "I64": np.dtype("<i8"),
}
"""The words of safetensors -> the types that a prepared dataset may have."""
_WORDS: Final[dict[np.dtype[Any], str]] = {dtype: word for word, dtype in DTYPES.items()}
NumpyBlock = np.ndarray[Any, np.dtype[Any]]


@dataclass(slots=True)
class _Column:
    """One tensor while it is written: its rows lie end to end in a file of its own, without a header."""

    fd: int
    word: str
    shape: tuple[int, ...]
    """Of one row."""
    rows: int = 0
    by_rows: bool = True
    path: Path = field(default_factory=Path)

    @property
    def row_bytes(self) -> int:
        return DTYPES[self.word].itemsize * int(np.prod(self.shape, dtype=np.int64))


class DatasetWriter:
    """Takes blocks of rows of any size by tensor name; `finish` cuts them into shards of fixed sizes.

    The files do not depend on the sizes of the blocks, and memory does not grow with the data. The disk holds the data
    once, and one shard more while `finish` runs. Errors of the disk are raised as OSError.
    """

    def __init__(self, folder: Path, source: InputFile, spec: PrepareSpec, report: Report) -> None:
        """`folder` is empty; a parser may keep temporary files in it, which it removes before `finish`."""
        self.folder = folder
        self.manifest: DatasetManifest | None = None
        self._source = source
        self._spec = spec
        self._report = report
        self._columns: dict[str, _Column] = {}
        self._written = 0

    def append(self, tensor: str, block: NumpyBlock) -> None:
        """Add rows to one of ROW_TENSORS: (rows, …) of float32, uint8, int32 or int64.

        Raises:
            ValueError: another type, or another shape of a row than before.
            Refused: all rows are far larger than the file.
        """
        if tensor not in ROW_TENSORS:
            raise ValueError(f"{tensor!r} is not one of the tensors of rows")
        self._write(tensor, block, by_rows=True)

    def put(self, tensor: str, array: NumpyBlock) -> None:
        """Store a whole tensor that is not cut by rows, such as `documents`."""
        if tensor in self._columns or tensor in ROW_TENSORS:
            raise ValueError(f"{tensor!r} is written by rows, or already")
        self._write(tensor, array, by_rows=False)

    def rows(self, tensor: str) -> int:
        """How many rows of a tensor have been written."""
        return self._columns[tensor].rows if tensor in self._columns else 0

    def finish(self, *, kind: str, format: str, **fields: Any) -> DatasetManifest:  # noqa: A002 - the manifest's word
        """Write shards and manifest.json, durably. `fields` are further fields of DatasetManifest.

        Examples, shards, tensors, warnings, options and the digest of the source are filled in here.

        Raises:
            ValueError: tensors of different lengths.
            Refused: there is no row.
        """
        by_rows = {name: column for name, column in self._columns.items() if column.by_rows}
        lengths = {name: column.rows for name, column in by_rows.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"tensors of different lengths: {lengths}")
        examples = max(lengths.values(), default=0)
        if examples == 0:
            self._report.refuse("empty", "the file has no rows")
        shards = self._write_shards(by_rows, examples)
        whole = {name: column for name, column in self._columns.items() if not column.by_rows}
        if whole:
            shards.append(
                self._write_shard("whole.safetensors", 0, {name: (c, 0, c.rows) for name, c in whole.items()})
            )
        self._remove_parts()
        size = max(1, self._source.size)
        digest = self._source.sha256(lambda done: self._report.progress_of_writing(examples, (1 + done / size) / 2))
        facts: dict[str, Any] = {
            "kind": kind,
            "format": format,
            "examples": examples,
            "shards": tuple(shards),
            "tensors": {name: TensorShape(dtype=c.word, shape=(c.rows, *c.shape)) for name, c in self._columns.items()},
            "warnings": self._report.warnings,
            "source_bytes": self._source.size,
            "source_sha256": digest,
            "options": self._spec.options.model_dump(mode="json", exclude_defaults=True),
        }
        self.manifest = DatasetManifest(**(facts | fields))
        self._write_manifest(self.manifest.canonical_json())
        return self.manifest

    def _write(self, tensor: str, block: NumpyBlock, *, by_rows: bool) -> None:
        word = _WORDS.get(block.dtype.newbyteorder("<"))
        if word is None or block.ndim == 0:
            raise ValueError(f"{tensor}: rows of {block.dtype} and shape {block.shape} cannot be stored")
        column = self._columns.get(tensor) or self._open_column(tensor, word, block.shape[1:], by_rows=by_rows)
        if (column.word, column.shape) != (word, block.shape[1:]):
            raise ValueError(f"{tensor}: {word} {block.shape[1:]} after {column.word} {column.shape}")
        self._written += block.nbytes
        if self._written > max(RATIO_FROM_BYTES, MOST_RATIO * self._source.size):
            self._report.refuse("bomb", f"its rows take more than {MOST_RATIO} times the bytes of the file")
        if block.size:
            write_all(column.fd, np.ascontiguousarray(block, DTYPES[word]).data.cast("B"))
        column.rows += block.shape[0]

    def _open_column(self, tensor: str, word: str, shape: tuple[int, ...], *, by_rows: bool) -> _Column:
        path = self.folder / f".{tensor}.part"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        self._columns[tensor] = column = _Column(fd, word, shape, by_rows=by_rows, path=path)
        return column

    def _write_shards(self, columns: dict[str, _Column], examples: int) -> list[ShardFile]:
        """From the last shard to the first, each removed from the parts at once: so the disk holds the data once."""
        row_bytes = sum(column.row_bytes for column in columns.values())
        rows = max(1, min(SHARD_ROWS, SHARD_BYTES // max(1, row_bytes)))
        starts = range(0, examples, rows)
        shards = []
        for number in reversed(range(len(starts))):
            start, end = starts[number], min(starts[number] + rows, examples)
            cut = {name: (column, start, end) for name, column in columns.items()}
            shards.append(self._write_shard(f"rows-{number:05d}.safetensors", end - start, cut))
            for column in columns.values():
                os.ftruncate(column.fd, start * column.row_bytes)
            self._report.progress_of_writing(examples, (1 - start / examples) / 2)
        return shards[::-1]

    def _write_shard(self, name: str, rows: int, cut: dict[str, tuple[_Column, int, int]]) -> ShardFile:
        """One safetensors file of rows [start, end) of each tensor, durable; its size and digest."""
        order = sorted(cut, key=lambda tensor: (-DTYPES[cut[tensor][0].word].itemsize, tensor))
        digest, total = sha256(), 0
        fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            for part in _shard_bytes(cut, order):
                write_all(fd, part)
                digest.update(part)
                total += len(part)
            os.fsync(fd)
        finally:
            os.close(fd)
        return ShardFile(name=name, rows=rows, bytes=total, sha256=digest.hexdigest())

    def _remove_parts(self) -> None:
        for column in self._columns.values():
            os.close(column.fd)
            column.path.unlink()

    def _write_manifest(self, content: bytes) -> None:
        fd = os.open(self.folder / MANIFEST_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        try:
            write_all(fd, content)
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(fd: int, data: bytes | memoryview) -> None:
    """Write all of it. Raises OSError where the disk takes no more."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _shard_bytes(cut: dict[str, tuple[_Column, int, int]], order: list[str]) -> Iterable[bytes]:
    """The content of a safetensors file: the length of the header, the header, the tensors in this order."""
    header: dict[str, Any] = {}
    offset = 0
    for name in order:
        column, start, end = cut[name]
        size = (end - start) * column.row_bytes
        shape = [end - start, *column.shape]
        header[name] = {"dtype": column.word, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    yield struct.pack("<Q", len(text)) + text
    for name in order:
        column, start, end = cut[name]
        yield from _read_rows(column, start, end)


def _read_rows(column: _Column, start: int, end: int) -> Iterable[bytes]:
    position, stop = start * column.row_bytes, end * column.row_bytes
    while position < stop:
        part = os.pread(column.fd, min(COPY_BYTES, stop - position), position)
        if not part:
            raise OSError(f"{column.path.name} is shorter than what was written")
        yield part
        position += len(part)
