"""Lays the shards of a prepared dataset end to end: one safetensors file for each tensor, for one map each.

Every statement of a manifest or a shard is checked: both were written by a process that has read a user's file.
"""

# ruff: noqa: N818 - BadShard says what it is

import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from core.recipe.data.manifest import MANIFEST_FILE, ROW_TENSORS, DatasetManifest, ShardFile, TensorShape

WHOLE_TENSORS: Final = ("documents",)
"""The tensors that are not cut by rows."""
DTYPE_BYTES: Final[Mapping[str, int]] = {"F32": 4, "U8": 1, "I32": 4, "I64": 8}
HEADER_BYTES: Final = 1 << 20  # of a shard, at most
COPY_BYTES: Final = 4 << 20
ALIGNMENT: Final = 64  # of the first byte of a tensor's data
_SHARD_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}\.safetensors")
_LENGTH: Final = struct.Struct("<Q")


class BadShard(Exception):
    """A manifest or a shard contradicts itself or the other."""


def tensor_file(tensor: str) -> str:
    """The name of the file that holds one tensor of a dataset that is laid out."""
    return f"{tensor}.safetensors"


def check_manifest(manifest: DatasetManifest) -> None:
    """Refuse names that could leave a folder, unknown tensors and types, and rows that do not add up.

    Raises:
        BadShard: the message says what is wrong.
    """
    names = [shard.name for shard in manifest.shards]
    if not names or len(set(names)) < len(names) or not all(_SHARD_NAME.fullmatch(name) for name in names):
        raise BadShard("the manifest names its shards wrongly")
    if any(shard.rows < 0 or shard.bytes < 0 for shard in manifest.shards):
        raise BadShard("the manifest has a shard of negative size")
    for name, tensor in manifest.tensors.items():
        if name not in (*ROW_TENSORS, *WHOLE_TENSORS) or tensor.dtype not in DTYPE_BYTES:
            raise BadShard(f"the manifest has a tensor {name[:40]!r} of type {tensor.dtype[:40]!r}")
        if not tensor.shape or min(tensor.shape) < 0:
            raise BadShard(f"the tensor {name} has no rows")
        if name in ROW_TENSORS and tensor.shape[0] != manifest.examples:
            raise BadShard(f"the tensor {name} has {tensor.shape[0]} rows, and there are {manifest.examples} examples")
    if sum(shard.rows for shard in manifest.shards) != manifest.examples:
        raise BadShard(f"the shards do not have {manifest.examples} rows together")


@dataclass(frozen=True, slots=True)
class ShardTensor:
    """One tensor of a shard: its data are the bytes `begin` to `end` of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_shard_header(file: BinaryIO) -> list[ShardTensor]:
    """The tensors of an open safetensors file, whose data lie within it.

    Raises:
        BadShard: the file is no such file.
    """
    size = os.fstat(file.fileno()).st_size
    head = file.read(_LENGTH.size)
    length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else HEADER_BYTES + 1
    if length > min(HEADER_BYTES, size):
        raise BadShard("a shard has no header")
    try:
        header = json.loads(file.read(length))
        return [
            _read_entry(name, entry, _LENGTH.size + length, size)
            for name, entry in header.items()
            if name != "__metadata__"
        ]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadShard("the header of a shard cannot be read") from error


def _read_entry(name: str, entry: Mapping[str, Any], start: int, size: int) -> ShardTensor:
    first, last = entry["data_offsets"]
    shape, dtype = tuple(int(each) for each in entry["shape"]), str(entry["dtype"])
    begin, end = start + int(first), start + int(last)
    if not start <= begin <= end <= size or end - begin != prod(shape) * DTYPE_BYTES[dtype]:
        raise BadShard(f"the tensor {name[:40]!r} of a shard is not where its header says")
    return ShardTensor(name, dtype, shape, begin, end)


class TensorFiles:
    """The files of all tensors of a dataset while shards are appended, in the order of the manifest."""

    def __init__(self, folder: Path, manifest: DatasetManifest) -> None:
        """Write the headers. `folder` is empty; the manifest is checked.

        Raises:
            BadShard: see `check_manifest`.
            OSError: this machine's disk does not take it.
        """
        check_manifest(manifest)
        self._manifest = manifest
        self._folder = folder
        self._files: dict[str, BinaryIO] = {}
        self._rows = dict.fromkeys(manifest.tensors, 0)
        for name, tensor in manifest.tensors.items():
            self._files[name] = (folder / tensor_file(name)).open("xb")
            self._files[name].write(tensor_header(name, tensor))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, shard: ShardFile, path: Path) -> None:
        """Append the rows of one shard to the files of its tensors.

        Raises:
            BadShard: the shard does not fit the manifest.
        """
        with path.open("rb") as file:
            found = read_shard_header(file)
            kinds = WHOLE_TENSORS if shard.rows == 0 else ROW_TENSORS
            if {each.name for each in found} != {name for name in self._manifest.tensors if name in kinds}:
                raise BadShard(f"{shard.name} does not have the tensors of its manifest")
            for tensor in found:
                self._append_tensor(shard, tensor, file)

    def finish(self, content: bytes) -> None:
        """Make the files durable and read-only, and write manifest.json with this content beside them.

        Raises:
            BadShard: rows are missing.
        """
        for name, tensor in self._manifest.tensors.items():
            if self._rows[name] != tensor.shape[0]:
                raise BadShard(f"the shards have {self._rows[name]} of {tensor.shape[0]} rows of {name}")
            self._seal(self._files[name])
        with (self._folder / MANIFEST_FILE).open("xb") as file:
            file.write(content)
            self._seal(file)

    def _append_tensor(self, shard: ShardFile, found: ShardTensor, file: BinaryIO) -> None:
        whole = self._manifest.tensors[found.name]
        rows = shard.rows or whole.shape[0]
        if (found.dtype, found.shape) != (whole.dtype, (rows, *whole.shape[1:])):
            raise BadShard(
                f"{shard.name}: {found.name} is {found.dtype} {found.shape}, which does not fit the manifest"
            )
        self._rows[found.name] += rows
        file.seek(found.begin)
        left = found.end - found.begin
        while left > 0:
            part = file.read(min(COPY_BYTES, left))
            if not part:
                raise BadShard(f"{shard.name} is shorter than its header says")
            self._files[found.name].write(part)
            left -= len(part)

    @staticmethod
    def _seal(file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o440)


def tensor_header(name: str, tensor: TensorShape) -> bytes:
    """The first bytes of a safetensors file of this tensor alone: the length of the header, and the header."""
    entry = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [0, tensor_bytes(tensor)]}
    text = json.dumps({name: entry}, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + _LENGTH.size) % ALIGNMENT)
    return _LENGTH.pack(len(text)) + text


def tensor_bytes(tensor: TensorShape) -> int:
    """The bytes of a tensor's data."""
    return prod(tensor.shape) * DTYPE_BYTES[tensor.dtype]


def is_laid_out(folder: Path, manifest: DatasetManifest) -> bool:
    """Whether the files of all tensors are there in their full size."""
    try:
        return all(
            (folder / tensor_file(name)).stat().st_size == len(tensor_header(name, tensor)) + tensor_bytes(tensor)
            for name, tensor in manifest.tensors.items()
        )
    except OSError:
        return False
